"""The same SWE run in the formats of different agents opens the same files and finds the same instance."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of, turns_of, with_openai_messages
from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe import reader as swe
from acc_megatron.data_tools.sources.swe.opened_paths import in_repository, opened_files
from acc_megatron.errors import Dropped

INSTANCE = {
    "instance_id": "own__tool-12",
    "repo": "own/tool",
    "problem_statement": "Adding fails\nIt should add.",
    "patch": "--- a/lib/a.py\n+++ b/lib/a.py\n@@ -1 +1 @@\n-x\n+y\n",
}
STORE = {"instance_id": "own__tool-12", "files_at_base_commit": {"lib/a.py": "a", "lib/b.py": "b", "c.py": "c"}}
ASK = {"role": "user", "content": "<pr_description>\nAdding fails\nIt should add.\n</pr_description>"}


def tool(name: str, output: str, **arguments: str) -> list[dict[str, Any]]:
    call = {"id": name, "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": output},
    ]


def fenced(command: str) -> list[dict[str, Any]]:
    return [
        {"role": "assistant", "content": f"I look.\n\n```bash\n{command}\n```"},
        {"role": "user", "content": "<returncode>0</returncode>\n<output>\nx\n</output>"},
    ]


HISTORY = [
    {"role": "system", "content": "s", "message_type": "system_prompt"},
    {"role": "user", "content": "ISSUE:\nAdding fails\nIt should add."},
    {
        "role": "assistant",
        "content": "I look.",
        "thought": "I look.",
        "tool_calls": [{"id": "1", "function": {"name": "open", "arguments": "{}"}}],
    },
    {"role": "tool", "content": "[File: lib/b.py (9 lines total)\r]\r\n1:x", "tool_call_ids": ["1"]},
]
EVENTS = [
    {"id": 0, "source": "agent", "action": "system", "args": {"content": "s"}},
    {"id": 1, "source": "user", "action": "message", "args": {"content": "Adding fails\nIt should add."}},
    {
        "id": 2,
        "source": "agent",
        "action": "read",
        "args": {"path": "/workspace/own__tool__1.0/lib/b.py", "thought": "I look."},
    },
    {"id": 3, "source": "agent", "cause": 2, "observation": "read", "content": "x"},
    {
        "id": 4,
        "source": "agent",
        "action": "edit",
        "args": {"path": "/workspace/own__tool__1.0/c.py", "command": "str_replace"},
    },
    {"id": 5, "source": "agent", "cause": 4, "observation": "edit", "content": "done"},
]
SDK_EVENTS = [
    {"id": "0", "kind": "SystemPromptEvent", "source": "agent", "system_prompt": {"type": "text", "text": "s"}},
    {
        "id": "1",
        "kind": "MessageEvent",
        "source": "user",
        "llm_message": {"role": "user", "content": [{"type": "text", "text": ASK["content"]}]},
    },
    {
        "id": "2",
        "kind": "ActionEvent",
        "source": "agent",
        "thought": [{"type": "text", "text": "I look."}],
        "action": {"kind": "TerminalAction", "command": "cd /workspace/tool && ls"},
        "tool_name": "terminal",
        "tool_call_id": "a",
        "llm_response_id": "r1",
    },
    {
        "id": "3",
        "kind": "ActionEvent",
        "source": "agent",
        "thought": [],
        "action": {"kind": "FileEditorAction", "command": "view", "path": "/workspace/tool/lib/b.py"},
        "tool_name": "file_editor",
        "tool_call_id": "b",
        "tool_call": {"id": "b", "arguments": '{"command": "view", "path": "/workspace/tool/lib/b.py"}'},
        "llm_response_id": "r1",
    },
    {
        "id": "4",
        "kind": "ObservationEvent",
        "source": "environment",
        "tool_name": "file_editor",
        "tool_call_id": "b",
        "action_id": "3",
        "observation": {"kind": "FileEditorObservation", "content": [{"type": "text", "text": "1  x"}]},
    },
    {
        "id": "5",
        "kind": "AgentErrorEvent",
        "source": "agent",
        "tool_name": "terminal",
        "tool_call_id": "a",
        "error": "no such tool",
    },
]
OPENHANDS_XML = [
    ASK,
    {
        "role": "assistant",
        "content": "I look.\n<function=str_replace_editor>\n<parameter=command>view</parameter>\n"
        "<parameter=path>/workspace/tool/lib/b.py</parameter>\n</function>",
    },
    {"role": "user", "content": "EXECUTION RESULT"},
]
LAYOUTS: dict[str, dict[str, Any]] = {
    "mini-swe-agent with tool calls": {
        "info": {"exit_status": "Submitted", "submission": "x"},
        "messages": [ASK, *tool("bash", "1  x", command="cd /testbed && cat lib/b.py | head -50")],
    },
    "mini-swe-agent with fenced commands": {
        "info": {"exit_status": "Submitted"},
        "messages": [ASK, *fenced("sed -n '1,40p' lib/b.py")],
    },
    "openai editor tool": {
        "messages": [ASK, *tool("str_replace_editor", "x", command="view", path="/testbed/lib/b.py")],
    },
    "openhands messages": {"instance_id": "own__tool-12", "messages": OPENHANDS_XML},
    "openhands events": {"instance_id": "own__tool-12", "history": EVENTS},
    "openhands pairs": {"instance_id": "own__tool-12", "history": [EVENTS[2:4], EVENTS[4:6]]},
    "openhands trajectory": {"trajectory": EVENTS},
    "swe-agent history only": {"history": HISTORY},
    "swe-agent runs as published": {
        "instance_id": "own__tool-12",
        "target": True,
        "trajectory": [
            {"role": "system", "system_prompt": "SETTING", "text": None, "mask": False},
            {"role": "user", "text": "Adding fails\nIt should add.", "system_prompt": None},
            {"role": "ai", "text": "I look.\n```\nopen lib/b.py\n```", "mask": True},
            {"role": "user", "text": "[File: /own__tool/lib/b.py (9 lines total)]\n1:x"},
        ],
        "exit_status": "submitted",
        "generated_patch": "x",
    },
    "messages as JSON text": {
        "instance_id": "own__tool-12",
        "resolved": True,
        "patch": "the agent's own",
        "messages": json.dumps(OPENHANDS_XML),
    },
    "openai messages under trajectory": {
        "instance_id": "own__tool-12",
        "resolved": 1,
        "trajectory": [ASK, *tool("str_replace_editor", "x", command="view", path="/testbed/lib/b.py")],
    },
    "mini-swe-agent with whole responses": {
        "info": {"exit_status": "Submitted"},
        "messages": [
            ASK,
            {
                "object": "response",
                "output": [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
                    {"type": "function_call", "call_id": "1", "name": "bash", "arguments": '{"command": "ls"}'},
                    {
                        "type": "function_call",
                        "call_id": "2",
                        "name": "bash",
                        "arguments": '{"command": "cat lib/b.py"}',
                    },
                ],
                "extra": {"actions": []},
            },
            {"type": "function_call_output", "call_id": "1", "output": "lib"},
            {"type": "function_call_output", "call_id": "2", "output": "1  x"},
            {"role": "exit", "content": "done"},
        ],
    },
    "sharegpt": {
        "instance_id": "own__tool-12",
        "conversations": [
            {"from": "human", "value": ASK["content"]},
            {"from": "gpt", "value": "I look.\n\n```bash\ncat lib/b.py\n```"},
            {"from": "human", "value": "x"},
        ],
    },
    "openhands sdk": {"instance_id": "own__tool-12", "instance": {}, "history": SDK_EVENTS},
}


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    (tmp_path / "instances.jsonl").write_text(f"{json.dumps(INSTANCE)}\n{json.dumps(STORE)}\n")
    return discover([tmp_path]).resources


def read(value: dict[str, Any], resources: Resources) -> Trajectory:
    row = plain(value)
    assert agent_of(row.value) is AGENT_KINDS["swe"]
    return swe.read(row, resources)


def plain(value: dict[str, Any]) -> Row:
    return with_openai_messages(Row(value=value, file="run.traj", line=1, byte_offset=0, sha256="ab" * 32))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_log_format_gives_the_same_trajectory(name: str, resources: Resources) -> None:
    trajectory = read(LAYOUTS[name], resources)
    assert [piece.id for piece in trajectory.evidence] == ["lib/a.py"]
    assert [piece.id for piece in trajectory.distractors] == ["lib/b.py"]
    assert trajectory.reasoning == "I look." and trajectory.notes["instance_id"] == "own__tool-12"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_log_format_has_turns_for_the_agent_sft_arm(name: str, resources: Resources) -> None:
    turns = turns_of(plain(LAYOUTS[name]).value, read(LAYOUTS[name], resources))
    learned = [turn for turn in turns if turn.supervised]
    assert learned and turns[-1] is learned[-1] and "I look." in learned[0].reasoning + learned[0].text
    assert any(turn.role == "user" and "Adding fails" in turn.text for turn in turns)


def test_parallel_actions_are_one_message_and_each_has_its_own_output() -> None:
    messages = plain({"history": SDK_EVENTS}).value["history"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool"]
    steps = transcript_of({"history": messages}).steps
    assert [(step.tool, step.arguments["command"], step.output) for step in steps] == [
        ("terminal", "cd /workspace/tool && ls", "no such tool"),
        ("file_editor", "view", "1  x"),
    ]


@pytest.mark.parametrize("verdict", [{"target": False}, {"resolved": 0}, {"report": {"resolved": False}}])
def test_a_published_run_that_failed_is_unresolved(verdict: dict[str, Any], resources: Resources) -> None:
    for name in ("swe-agent runs as published", "openai messages under trajectory"):
        with pytest.raises(Dropped, match="unresolved"):
            read(LAYOUTS[name] | verdict, resources)
        unjudged = {"target": None, "resolved": -1}
        assert read(LAYOUTS[name] | unjudged, resources).notes["run_verified"] is False


def test_a_run_with_its_instance_needs_only_the_files(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps([STORE]))
    found = discover([tmp_path]).resources
    value = {
        "instance_id": "own__tool-12",
        "instance": INSTANCE,
        "history": EVENTS,
        "test_result": {"report": {"resolved": True}},
    }
    trajectory = read(value, found)
    assert trajectory.answer == INSTANCE["patch"].strip() and trajectory.notes["run_verified"] is True
    value["test_result"] = {"report": {"resolved": False}}
    with pytest.raises(Dropped, match="unresolved"):
        read(value, found)


def test_the_instance_is_found_by_the_name_of_the_container_image(resources: Resources) -> None:
    image = "docker.io/swebench/sweb.eval.x86_64.own_1776_tool-12:latest"
    value = LAYOUTS["mini-swe-agent with fenced commands"] | {
        "info": {"exit_status": "Submitted", "config": {"environment": {"image": image}}}
    }
    value["messages"] = [{"role": "user", "content": "no statement"}, *value["messages"][1:]]
    assert read(value, resources).notes["instance_id"] == "own__tool-12"


def test_a_document_of_events_or_messages_is_one_run(tmp_path: Path) -> None:
    called = [ASK, {"type": "function_call", "name": "bash"}, {"type": "function_call_output", "output": "x"}]
    runs = ((EVENTS, "history"), (SDK_EVENTS, "history"), (HISTORY, "messages"), (called, "messages"))
    for items, key in runs:
        (tmp_path / "run.json").write_text(json.dumps(items))
        (row,) = rows_of(tmp_path / "run.json")
        assert isinstance(row, Row) and row.value == {key: items} and row.line == 1
    separate = [{"type": "chatml", "question": "Who?"}, {"type": "chatml", "question": "Where?"}]
    (tmp_path / "run.json").write_text(json.dumps(separate))
    assert len(list(rows_of(tmp_path / "run.json"))) == 2


@pytest.mark.parametrize(
    ("command", "opened"),
    [
        ("cat lib/a.py setup.cfg", ["lib/a.py", "setup.cfg"]),
        ("cd lib && nl -ba b.py | sed -n '1,20p'", ["lib/b.py"]),
        ("sed -i 's/x/y/' lib/a.py", []),
        ("cat <<'EOF' > new.py\ncat lib/a.py\nEOF", []),
        ("cat lib/a.py > copy.py", []),
        ("grep -rn x lib/a.py", []),
        ("cat /usr/lib/python3/os.py /testbed/lib/a.py", ["lib/a.py"]),
        ("echo 'open", []),
        ("cat 'lib/a.py", []),
        ("head -5 lib/a.py; tail lib/b.py", ["lib/a.py", "lib/b.py"]),
    ],
)
def test_a_shell_command_opens_the_files_that_it_prints(command: str, opened: list[str]) -> None:
    assert opened_files([Step(tool="bash", arguments={"command": command})]) == opened


@pytest.mark.parametrize(
    ("path", "label"),
    [("/testbed/a/b.py", "a/b.py"), ("/workspace/x/a.py", "a.py"), ("./a.py", "a.py"), ("/etc/passwd", ""), ("/", "")],
)
def test_a_path_becomes_a_label_of_the_repository(path: str, label: str) -> None:
    assert in_repository(path) == label
