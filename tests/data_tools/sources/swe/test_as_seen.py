"""D10: a SWE run without an instance that passed gives its own patch, and the files as it first saw them."""

import json
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.data_tools.sources.swe.seen_files import seen_files
from acc_megatron.data_tools.sources.swe.steps import steps_of
from acc_megatron.data_tools.sources.swe.unified_diff import apply_patch
from acc_megatron.errors import Dropped

DATA = SHARED_DATA / "swe"
LINES = ["def add(a, b):", "    return a - b", "", "", "def twice(a):", "    return add(a, a)"]
TEXT = "\n".join(LINES) + "\n"
PATCH = (
    "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1,5 +1,5 @@\n def add(a, b):\n"
    "-    return a - b\n+    return a + b\n \n \n def twice(a):"
)
FIXED = TEXT.replace("a - b", "a + b")
NUMBERED = "".join(f"     {number}\t{line}\n" for number, line in enumerate(LINES, start=1)) + "     7\t\n"
EDITOR_VIEW = f"Here's the result of running `cat -n` on /testbed/pkg/a.py:\n{NUMBERED}"
WINDOW = "[File: /testbed/pkg/a.py (6 lines total)]\n" + "\n".join(f"{i}:{line}" for i, line in enumerate(LINES, 1))
EDIT = {
    "command": "str_replace",
    "path": "/testbed/pkg/a.py",
    "old_str": "    return a - b\n",
    "new_str": "    return a + b\n",
}
PROMPT = "Fix this in /testbed.\n<pr_description>\nAdding subtracts.\n</pr_description>\nUse the tools."


def call(name: str, number: int, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    made = {"id": f"c{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": f"Thought {number}.", "tool_calls": [made]}


def openhands(view: str = EDITOR_VIEW, edit: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": PROMPT},
        call("str_replace_editor", 1, command="view", path="/testbed/pkg/a.py"),
        {"role": "tool", "tool_call_id": "c1", "content": view},
        call("str_replace_editor", 2, **(edit or EDIT)),
        {"role": "tool", "tool_call_id": "c2", "content": "The file /testbed/pkg/a.py has been edited."},
        call("finish", 3),
    ]


NEBIUS = [
    {"role": "system", "text": None, "system_prompt": "s"},
    {"role": "user", "text": f"Here's the issue text:\nISSUE:\nAdding subtracts.\n\nINSTRUCTIONS:\nWork.\n{'x' * 9}"},
    {"role": "ai", "text": "Thought 1.\n```\nopen pkg/a.py\n```"},
    {"role": "user", "text": WINDOW},
    {"role": "ai", "text": "Thought 2.\n```\nedit 2:2\n    return a + b\nend_of_edit\n```"},
    {"role": "user", "text": WINDOW.replace("a - b", "a + b")},
    {"role": "ai", "text": "Done.\n```\nsubmit\n```"},
]
R2E_STEPS = [
    {
        "thought": "Thought 1.",
        "action": "<function=file_editor>\n<parameter=command>view</parameter>\n"
        "<parameter=path>/testbed/pkg/a.py</parameter>\n</function>",
        "observation": f"Execution output of [file_editor]:\n{EDITOR_VIEW}",
    },
    {"thought": "Done.", "action": "<function=submit>\n</function>", "observation": "ok"},
]
ROWS: dict[str, dict[str, Any]] = {
    "nebius, SWE-agent": {"instance_id": "o__t-1", "target": True, "trajectory": NEBIUS, "generated_patch": PATCH},
    "nebius, OpenHands": {
        "instance_id": "o__t-1", "resolved": 1, "exit_status": "submit", "trajectory": openhands(),
        "model_patch": PATCH, "repo": "o/t",
    },
    "SWE-smith": {"instance_id": "o__t-1", "resolved": True, "messages": json.dumps(openhands()), "patch": PATCH},
    "SWE-Gym": {
        "instance_id": "o__t-1", "messages": openhands(),
        "test_result": {"git_patch": PATCH, "report": {"resolved": True}},
    },
    "R2E-Gym": {
        "problem_statement": "Adding subtracts.", "trajectory_steps": R2E_STEPS, "reward": 1, "output_patch": PATCH,
        "docker_image": "x/sweb.eval.x86_64.o_1776_t-1:latest",
    },
    "CoderForge": {
        "trajectory_id": "o__t-1_run1", "image": "x/sweb.eval.x86_64.o_1776_t-1", "reward": 1.0,
        "messages": json.dumps(openhands()), "tools": "[]",
    },
}  # fmt: skip


def read(value: dict[str, Any]) -> Trajectory:
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    agent = SweAgent()
    assert agent.recognises(row.value)
    return agent.read(row, Resources())


@pytest.mark.parametrize("name", ROWS)
def test_a_published_row_that_passed_needs_no_instance_row(name: str) -> None:
    trajectory = read(ROWS[name])
    assert [(piece.id, piece.text) for piece in trajectory.evidence] == [("pkg/a.py", TEXT)]
    assert apply_patch(trajectory.answer, {"pkg/a.py": TEXT}) == {"pkg/a.py": FIXED}
    assert trajectory.question.startswith("Adding subtracts.\n\nWrite the patch")
    assert trajectory.reasoning.startswith("Thought 1.") and "Done." not in trajectory.reasoning
    notes = trajectory.notes
    assert (notes["evidence_rule"], notes["instance_id"], notes["partly_seen_files"]) == ("as_seen", "o__t-1", [])
    assert notes["patch_source"] == ("edits" if name == "CoderForge" else "row") and trajectory.is_judged


def dropped(value: dict[str, Any]) -> Dropped:
    with pytest.raises(Dropped) as found:
        read(value)
    return found.value


def test_a_run_that_nobody_judged_names_the_instance_row_that_it_needs() -> None:
    without = {key: value for key, value in ROWS["SWE-smith"].items() if key != "resolved"}
    found = dropped(without)
    assert found.reason == "no_instance_row" and "--resources" in found.detail and "nothing says" in found.detail
    assert dropped(ROWS["SWE-smith"] | {"resolved": False}).reason == "unresolved"


def test_a_patch_of_lines_that_the_run_never_saw_is_dropped() -> None:
    part = "Here's the result of running `cat -n` on /testbed/pkg/a.py:\n     1\tdef add(a, b):\n<response clipped>"
    found = dropped(ROWS["SWE-smith"] | {"messages": openhands(part)})
    assert found.reason == "own_patch_not_seen" and "changed 'pkg/a.py' do not show line 2" in found.detail
    other = openhands(EDITOR_VIEW.replace("a - b", "a * b"))
    assert "another text in line 2" in dropped(ROWS["SWE-smith"] | {"messages": other}).detail
    value = ROWS["SWE-smith"] | {"messages": openhands(part)}
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    assert SweAgent().read_run(row, Resources()).notes["no_triple"].startswith("own_patch_not_seen: ")


def test_gaps_of_a_file_that_was_seen_in_part_are_stated() -> None:
    lines = [f"line {number}" for number in range(1, 30)]
    view = "Here's the result of running `cat -n` on /testbed/pkg/a.py:\n"
    view += "".join(f"     {number}\t{lines[number - 1]}\n" for number in range(10, 20))
    patch = "--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -12,3 +12,3 @@\n line 12\n-line 13\n+line x\n line 14"
    messages = openhands(view)
    messages[1] = call("str_replace_editor", 1, command="view", path="/testbed/pkg/a.py", view_range=[10, 19])
    trajectory = read(ROWS["SWE-smith"] | {"messages": messages, "patch": patch})
    shown = "\n".join(lines[9:19])
    gap, rest = "[lines 1 to 9 were not shown]", "[the lines from 20 on were not shown]"
    assert trajectory.evidence[0].text == f"{gap}\n{shown}\n{rest}\n"
    assert trajectory.notes["partly_seen_files"] == ["pkg/a.py"]


def test_edits_that_cannot_be_replayed_give_no_patch() -> None:
    messages = openhands()
    messages[3] = call("execute_bash", 2, command="sed -i 's/-/+/' /testbed/pkg/a.py")
    assert dropped(ROWS["CoderForge"] | {"messages": messages}).reason == "no_instance_row"


def test_the_arm_agent_sft_needs_neither_a_patch_nor_an_instance_row() -> None:
    value = {key: found for key, found in ROWS["SWE-smith"].items() if key not in ("resolved", "patch")}
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    run = SweAgent().read_run(row, Resources())
    assert (run.evidence, run.answer, run.question, run.is_judged) == ((), "", "Adding subtracts.", False)
    assert run.notes["no_triple"].startswith("no_instance_row: ")
    with pytest.raises(Dropped, match="unresolved"):
        SweAgent().read_run(Row(**{**row_fields(row), "value": row.value | {"resolved": False}}), Resources())


def row_fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_the_lines_that_real_runs_saw_are_those_of_the_files_at_the_base_commit() -> None:
    instances = json.loads((DATA / "instances_with_files.json").read_text(encoding="utf-8"))
    num_lines = 0
    for instance in instances:
        files = instance["files_at_base_commit"]
        for path in sorted(DATA.glob(f"{instance['instance_id'].partition('__')[2]}*.traj")):
            for row in rows_of(path):
                assert isinstance(row, Row)
                for seen in seen_files(steps_of(row.value)).values():
                    known = files.get(seen.path, "").split("\n")
                    for number, line in seen.lines.items() if seen.path in files else ():
                        assert known[number - 1] == line, (path, seen.path, number)
                        num_lines += 1
    assert num_lines > 800


CLAUDE_CODE = [
    {"type": "user", "uuid": "1", "message": {"role": "user", "content": PROMPT}},
    {
        "type": "assistant",
        "uuid": "2",
        "message": {
            "id": "m",
            "content": [
                {"type": "text", "text": "Thought 1."},
                {"type": "tool_use", "id": "t", "name": "Read", "input": {"file_path": "/testbed/pkg/a.py"}},
            ],
        },
    },
    {
        "type": "user",
        "uuid": "3",
        "message": {
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": "".join(f"{number:6}→{line}\n" for number, line in enumerate(LINES, start=1)),
                }
            ]
        },
    },
]
CODEX = [
    {"type": "response_item", "payload": payload}
    for payload in (
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Thought 1."}]},
        {
            "type": "function_call",
            "name": "shell",
            "call_id": "c",
            "arguments": json.dumps({"command": ["bash", "-lc", "cat pkg/a.py"]}),
        },
        {"type": "function_call_output", "call_id": "c", "output": json.dumps({"output": TEXT, "metadata": {}})},
    )
]


@pytest.mark.parametrize("messages", [CLAUDE_CODE, CODEX])
def test_session_logs_show_the_files_that_they_read(messages: list[dict[str, Any]]) -> None:
    run = read({"instance_id": "o__t-1", "messages": messages, "resolved": True, "patch": PATCH})
    (file,) = run.evidence
    assert file.id == "pkg/a.py" and file.text.rstrip() == TEXT.rstrip()
    assert (run.reasoning, run.answer) == ("Thought 1.", PATCH)
