"""A session log of a coding agent is one run a file, with the steps of the agent and without the client's events."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of


def claude(number: int, role: str, content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": content} | ({"id": more.pop("reply")} if "reply" in more else {})
    return {"type": role, "uuid": str(number), "sessionId": "s", "message": message} | more


CLAUDE = [
    {"type": "summary", "summary": "x", "leafUuid": "u"},
    claude(1, "user", "<command-name>/clear</command-name>", isMeta=True),
    claude(2, "user", "f should return 2"),
    claude(3, "assistant", [{"type": "thinking", "thinking": "I look."}], reply="m1"),
    claude(
        4,
        "assistant",
        [{"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "/testbed/pkg/b.py"}}],
        reply="m1",
    ),
    claude(5, "assistant", [{"type": "text", "text": "of a side chain"}], isSidechain=True),
    claude(6, "user", [{"type": "tool_result", "tool_use_id": "t1", "content": "import a"}]),
    claude(7, "assistant", [{"type": "text", "text": "done"}], reply="m2"),
]


def codex(**payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-01T00:00:00Z", "type": "response_item", "payload": payload}


CODEX = [
    {"timestamp": "2026-01-01T00:00:00Z", "type": "session_meta", "payload": {"id": "s", "cwd": "/testbed"}},
    codex(type="message", role="user", content=[{"type": "input_text", "text": "<environment_context>\n"}]),
    codex(type="message", role="user", content=[{"type": "input_text", "text": "f should return 2"}]),
    {"timestamp": "2026-01-01T00:00:01Z", "type": "event_msg", "payload": {"type": "token_count"}},
    codex(type="reasoning", summary=[{"type": "summary_text", "text": "I look."}], encrypted_content="x"),
    codex(type="function_call", name="Read", call_id="c", arguments='{"file_path": "/testbed/pkg/b.py"}'),
    codex(type="function_call_output", call_id="c", output="import a"),
    codex(type="message", role="assistant", content=[{"type": "output_text", "text": "done"}]),
]  # fmt: skip


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


@pytest.mark.parametrize("events", [CLAUDE, CODEX])
def test_a_session_is_one_swe_run_with_the_steps_of_the_agent(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    path = write(tmp_path / "own__repo-1.jsonl", events)
    found = discover([path])
    (row,) = (row for part in found.ranges(2) for row in found.rows(part))
    assert isinstance(row, Row) and agent_of(row.value) is AGENT_KINDS["swe"]
    found = transcript_of(row.value)
    assert (found.prompt, found.final) == ("f should return 2", "done")
    (step,) = found.steps
    assert (step.thought, step.tool, step.arguments, step.output) == (
        "I look.",
        "Read",
        {"file_path": "/testbed/pkg/b.py"},
        "import a",
    )


def test_an_unreadable_line_of_a_session_is_a_bad_row_and_the_others_stay_one_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", CODEX)
    path.write_text(path.read_text() + "{broken\n")
    bad, row = rows_of(path)
    assert isinstance(bad, BadRow) and (bad.line, bad.reason) == (len(CODEX) + 1, "broken_json")
    assert isinstance(row, Row) and len(row.value["messages"]) == len(CODEX)


def test_rows_that_are_runs_are_not_taken_for_events(tmp_path: Path) -> None:
    rows = [{"type": "user", "messages": []}, {"type": "chatml", "sessionId": "s"}, {"source": "web", "action": "x"}]
    assert [row.value for row in rows_of(write(tmp_path / "a.jsonl", rows)) if isinstance(row, Row)] == rows


def test_a_document_keyed_by_index_has_a_row_for_each_index(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text(json.dumps({"7": {"question": "a"}, "12": {"question": "b"}}))
    found = [(row.line, row.value) for row in rows_of(tmp_path / "runs.json") if isinstance(row, Row)]
    assert found == [(1, {"question": "a"}), (2, {"question": "b"})]
    for other in ({"7": {"question": "a"}, "name": {}}, {"7": [1]}, {}):
        (tmp_path / "one.json").write_text(json.dumps(other))
        assert [row.value for row in rows_of(tmp_path / "one.json") if isinstance(row, Row)] == [other]
