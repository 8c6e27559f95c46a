"""One SWE run in many spellings gives one triple: its reasoning, the file as it was seen, and its own patch."""

import json
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.known_agents import agent_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe.agent import SweAgent

FILE = "import os\n\ndef f():\n    return 1\n"
VIEW = "".join(f"{number:6}\t{line}\n" for number, line in enumerate(FILE.splitlines(), start=1))
PATCH = (
    "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1,4 +1,4 @@\n import os\n \n def f():\n"
    "-    return 1\n+    return 2"
)
READ = {"command": "cat -n /testbed/pkg/a.py"}
ROW = {"resolved": True, "instance_id": "o__t-1", "model_patch": PATCH, "problem_statement": "f should return 2"}
ASKED = {"role": "user", "content": "Please fix the repository in /testbed."}


def chat(reply: object, output: str, **more: Any) -> list[dict[str, Any]]:
    message = reply if isinstance(reply, dict) else {"role": "assistant", "content": reply}
    return [ASKED, message, {"role": "user", "content": output} | more, {"role": "assistant", "content": "Done."}]


def called(arguments: object) -> dict[str, Any]:
    call = {"id": "c1", "function": {"name": "bash", "arguments": arguments}}
    return {"role": "assistant", "content": "I read a.", "tool_calls": [call]}


SPELLINGS = {
    "JSON arguments": chat(called(json.dumps(READ)), VIEW, role="tool", tool_call_id="c1"),
    "Python arguments": chat(called(str(READ)), VIEW, role="tool", tool_call_id="c1"),
    "Qwen": chat(
        f'I read a.\n<tool_call>\n{{"name": "bash", "arguments": {json.dumps(READ)}}}\n</tool_call>',
        f"<tool_response>\n{VIEW}</tool_response>",
    ),
    "Qwen3-Coder": chat(
        f"I read a.\n<tool_call>\n<function=bash>\n<parameter=command>\n{READ['command']}\n</parameter>\n</function>\n"
        "</tool_call>",
        f"<tool_response>\n{VIEW}</tool_response>",
    ),
    "Anthropic's tags": chat(
        f'I read a.\n<function_calls>\n<invoke name="bash">\n<parameter name="command">{READ["command"]}</parameter>\n'
        "</invoke>\n</function_calls>",
        f"<function_results>\n{VIEW}</function_results>",
    ),
    "CodeAct": chat(f"I read a.\n<execute_bash>\n{READ['command']}\n</execute_bash>", f"OBSERVATION:\n{VIEW}"),
    "first SWE-agent": chat(f"DISCUSSION\nI read a.\n\n```\n{READ['command']}\n```", VIEW),
    "first mini-swe-agent": chat(f"THOUGHT: I read a.\n\n```bash\n{READ['command']}\n```", VIEW),
}


def triple_of(row: dict[str, Any]) -> tuple[str, str, list[tuple[str, str]], str]:
    found = with_openai_messages(Row(value=row, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    kind = agent_of(found.value)
    assert kind is not None and kind.name == "swe"
    run = SweAgent().read(found, Resources())
    evidence = [(piece.id, piece.text) for piece in run.evidence]
    return run.question.partition("\n\n")[0], run.reasoning, evidence, run.answer


EXPECTED = ("f should return 2", "I read a.", [("pkg/a.py", FILE)], PATCH)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_way_to_write_a_call_gives_the_same_triple(name: str) -> None:
    assert triple_of(ROW | {"messages": SPELLINGS[name]}) == EXPECTED


@pytest.mark.parametrize("key", ["message_history", "input_messages", "chat_history", "rollout", "transcript"])
def test_messages_are_found_under_other_names(key: str) -> None:
    assert triple_of(ROW | {key: SPELLINGS["JSON arguments"]}) == EXPECTED


@pytest.mark.parametrize(
    "key", ["patch", "git_patch", "submission", "final_patch", "predicted_patch", "diff", "git_diff"]
)
def test_the_own_patch_is_found_under_other_names(key: str) -> None:
    row = {name: value for name, value in ROW.items() if name != "model_patch"} | {key: PATCH}
    assert triple_of(row | {"messages": SPELLINGS["JSON arguments"]}) == EXPECTED


@pytest.mark.parametrize(
    "stated",
    [
        {"issue": {"title": "f should return 2", "body": "It returns 1."}},
        {"question": "f should return 2", "task": "swe"},
        {"problem": "f should return 2"},
        {"task": "f should return 2"},
    ],
)
def test_the_issue_is_found_under_other_names(stated: dict[str, Any]) -> None:
    row = {name: value for name, value in ROW.items() if name != "problem_statement"} | stated
    assert triple_of(row | {"messages": SPELLINGS["JSON arguments"]}) == EXPECTED
