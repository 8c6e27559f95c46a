"""The path of a Moatless run that finishes is read from nested and from listed nodes."""

from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.sources.formats.known_formats import format_of, transcript_of, turns_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.data_tools.sources.swe.opened_paths import opened_files
from acc_megatron.data_tools.sources.swe.steps import is_swe_run


def node(number: int, parent: int | None, tool: str, message: str, **arguments: Any) -> dict[str, Any]:
    action = {"thoughts": f"Thought {number}.", "action_args_class": f"moatless.actions.x.{tool}Args"} | arguments
    step = {"action": action, "observation": {"message": message}}
    return {"node_id": number, "parent_id": parent, "action_steps": [step]}


ROOT = {"node_id": 0, "parent_id": None, "user_message": "It fails.", "action_steps": []}
VIEW = node(1, 0, "ViewCode", "x = 1", files=[{"file_path": "a.py", "start_line": 1}])
DEAD_END = node(2, 1, "FindClass", "nothing", class_name="X")
FINISH = node(3, 1, "Finish", "done", finish_reason="ok")
LISTED = {"metadata": {"instance_id": "own__repo-1"}, "nodes": [ROOT, VIEW, DEAD_END, FINISH]}
NESTED = {"root": ROOT | {"children": [VIEW | {"children": [DEAD_END, FINISH]}]}}


@pytest.mark.parametrize("row", [LISTED, NESTED])
def test_the_path_to_the_node_that_finishes_is_the_run(row: dict[str, Any]) -> None:
    found = format_of(row)
    assert found is not None and found.name == "Moatless trajectory" and is_swe_run(row)
    transcript = transcript_of(row)
    assert transcript.prompt == "It fails."
    assert [(step.tool, step.thought, step.output) for step in transcript.steps] == [
        ("view_file", "Thought 1.", "x = 1"),
        ("Finish", "Thought 3.", "done"),
    ]
    assert opened_files(transcript.steps) == ["a.py"]


def test_parents_that_do_not_exist_or_form_a_circle_end_the_path() -> None:
    row = {"nodes": [node(1, 2, "Finish", "a"), node(2, 1, "ViewCode", "b"), node(3, 99, "Finish", "c")]}
    assert [step.output for step in transcript_of(row).steps] == ["a", "b", "c"]


@pytest.mark.parametrize("is_newer", [False, True])
def test_older_versions_list_states_with_their_actions(is_newer: bool) -> None:
    def action(output: dict[str, Any], **request: Any) -> dict[str, Any]:
        return (
            {"request": request, "response": {"output": output}} if is_newer else {"action": request, "output": output}
        )

    search = action({"ranked_spans": []}, scratch_pad="I search.", search_requests=[])
    edit = action({"message": "Applied."}, content="<replace>y</replace>")
    row = {
        "initial_message": "It fails.",
        "transitions": [
            {"name": "Pending"},
            {"name": "SearchCode", "actions": [search]},
            {"name": "EditCode", "actions": [edit]},
        ],
        "info": {"instance_id": "own__repo-1"},
    }
    assert is_swe_run(row)
    transcript = transcript_of(row)
    assert transcript.prompt == "It fails."
    assert [(step.tool, step.thought, step.output) for step in transcript.steps] == [
        ("SearchCode", "I search.", '{"ranked_spans": []}'),
        ("EditCode", "", "Applied."),
    ]


def test_a_run_needs_no_instance_for_its_question_and_keeps_the_system_prompt() -> None:
    root = ROOT | {"user_message": "<task>\nIt fails.\n</task>\nBe quick."}
    row = {"agent": {"system_prompt": "You fix."}, "nodes": [root, VIEW, FINISH]}
    run = SweAgent().read_run(Row(value=row, file="t.json", line=1, byte_offset=0, sha256="ab" * 32), Resources())
    assert run.question == "It fails."
    turns = turns_of(row, run)
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
