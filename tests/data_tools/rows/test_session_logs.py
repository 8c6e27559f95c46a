"""A session log of a coding agent is one run a file, with the steps of the agent and without the client's events."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of, turns_of
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe.agent import SweAgent


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


def run_of(path: Path, events: list[dict[str, Any]]) -> Row:
    found = discover([write(path / "run.jsonl", events)])
    (row,) = (row for part in found.ranges(2) for row in found.rows(part))
    assert isinstance(row, Row) and agent_of(row.value) is AGENT_KINDS["swe"]
    return row


@pytest.mark.parametrize(
    "first",
    [
        {"type": "permission-mode", "permissionMode": "default", "sessionId": "s"},
        {"type": "attachment", "uuid": "a", "parentUuid": None, "attachment": {"type": "hook_success"}},
    ],
)
def test_any_event_of_a_client_can_open_a_session(tmp_path: Path, first: dict[str, Any]) -> None:
    assert transcript_of(run_of(tmp_path, [first, *CLAUDE]).value).final == "done"


def test_rows_with_messages_and_a_session_id_are_no_events(tmp_path: Path) -> None:
    rows = [{"type": "chat", "sessionId": "s", "messages": [{"role": "user", "content": "a"}]}] * 2
    assert len(list(rows_of(write(tmp_path / "a.jsonl", rows)))) == 2


def test_the_log_of_a_subagent_is_a_run_although_it_is_a_side_chain(tmp_path: Path) -> None:
    events = [event | {"isSidechain": True} for event in CLAUDE if event.get("uuid") != "5"]
    found = transcript_of(run_of(tmp_path, events).value)
    assert (found.prompt, len(found.steps), found.final) == ("f should return 2", 1, "done")


def test_what_the_user_took_back_is_left_out(tmp_path: Path) -> None:
    call = [{"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "rm x"}}]
    undone = [
        claude(1, "user", "f should return 2", parentUuid="0"),
        {"type": "attachment", "uuid": "1a", "parentUuid": "1", "attachment": {"type": "todo"}},
        claude(2, "assistant", call, reply="m1", parentUuid="1a"),
        claude(3, "user", [{"type": "tool_result", "tool_use_id": "t", "content": "gone"}], parentUuid="2"),
        claude(4, "user", "f should return 3", parentUuid="0"),
        claude(5, "assistant", [{"type": "text", "text": "done"}], reply="m2", parentUuid="4"),
        claude(6, "user", "Thanks. Now g.", parentUuid="5"),
        claude(7, "assistant", [{"type": "text", "text": "g too"}], reply="m3", parentUuid="6"),
    ]
    row = run_of(tmp_path, undone)
    found = transcript_of(row.value)
    assert (found.prompt, [step.tool for step in found.steps], found.final) == ("f should return 3", [""], "g too")
    turns = turns_of(row.value, SweAgent().read_run(row, Resources()))
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "f should return 3"), ("assistant", "done"), ("user", "Thanks. Now g."), ("assistant", "g too"),
    ]  # fmt: skip


def test_a_request_after_an_output_or_after_code_in_a_reply_is_a_user_turn(tmp_path: Path) -> None:
    code = "Like this:\n```python\nf()\n```\nand\n```\n2\n```"
    events = [
        *CLAUDE[:-1],
        claude(21, "user", "Now g."),
        claude(22, "assistant", [{"type": "text", "text": code}], reply="m4"),
        claude(23, "user", "And h?"),
        claude(24, "assistant", [{"type": "text", "text": "done"}], reply="m5"),
    ]
    row = run_of(tmp_path, events)
    turns = turns_of(row.value, SweAgent().read_run(row, Resources()))
    assert [(turn.role, turn.text) for turn in turns[2:]] == [
        ("tool", "import a"), ("user", "Now g."), ("assistant", code), ("user", "And h?"), ("assistant", "done"),
    ]  # fmt: skip


def test_messages_of_the_client_are_neither_requests_nor_replies(tmp_path: Path) -> None:
    events = [
        claude(11, "user", "<command-name>/model</command-name>\n<command-args></command-args>"),
        claude(12, "user", "<local-command-stdout>Set model</local-command-stdout>"),
        *CLAUDE[2:-1],
        {"type": "system", "subtype": "compact_boundary", "uuid": "b", "sessionId": "s"},
        claude(13, "user", "This session is being continued from a conversation.", isCompactSummary=True),
        claude(14, "assistant", [{"type": "text", "text": "API Error: 529"}], isApiErrorMessage=True, reply="m3"),
        claude(15, "assistant", [{"type": "text", "text": "done"}], reply="m2"),
        claude(16, "assistant", [{"type": "text", "text": "done"}], reply="m2"),
    ]
    events[-3]["message"]["model"] = "<synthetic>"
    row = run_of(tmp_path, events)
    run = SweAgent().read_run(row, Resources())
    assert run.question == "f should return 2"
    turns = turns_of(row.value, run)
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "f should return 2"), ("assistant", ""), ("tool", "import a"), ("assistant", "done"),
    ]  # fmt: skip


def test_items_of_newer_versions_of_codex_are_calls_outputs_or_left_out(tmp_path: Path) -> None:
    events = [
        {"type": "session_meta", "payload": {"id": "s"}},
        codex(
            type="message", role="user", content=[{"type": "input_text", "text": "# AGENTS.md instructions\nUse x."}]
        ),
        codex(type="message", role="user", content=[{"type": "input_text", "text": "<skill>y</skill>"}]),
        codex(type="message", role="user", content=[{"type": "input_text", "text": "f should return 2"}]),
        {"type": "event_msg", "payload": {"type": "user_message", "message": "f should return 2"}},
        codex(type="ghost_snapshot", ghost_commit={"id": "1"}),
        codex(type="web_search_call", status="completed", action={"type": "search", "query": "f"}),
        codex(type="tool_search_call", call_id="1", arguments={"query": "read"}),
        codex(type="tool_search_output", call_id="1", tools=[{"name": "Read"}]),
        codex(type="custom_tool_call", call_id="2", name="exec", input="cat pkg/b.py"),
        codex(type="custom_tool_call_output", call_id="2", output=[{"type": "input_text", "text": "import a"}]),
        codex(type="local_shell_call", call_id="3", action={"type": "exec", "command": ["ls"]}),
        codex(type="function_call_output", call_id="3", output={"type": "input_text", "text": "pkg"}),
        codex(type="message", role="assistant", content=[{"type": "output_text", "text": "done"}]),
    ]
    row = run_of(tmp_path, events)
    found = transcript_of(row.value)
    assert SweAgent().read_run(row, Resources()).question == "f should return 2"
    assert (found.prompt, found.final) == ("f should return 2", "done")
    assert [(step.tool, step.arguments.get("command"), step.output) for step in found.steps] == [
        ("tool_search", None, '[{"name": "Read"}]'), ("exec", None, "import a"), ("local_shell", ["ls"], "pkg"),
    ]  # fmt: skip


def test_a_session_of_codex_without_envelopes_is_one_run(tmp_path: Path) -> None:
    first = {"id": "s", "timestamp": "2025-07-01T00:00:00Z", "instructions": None, "git": {}}
    events = [
        first,
        {"record_type": "state"},
        *(event["payload"] for event in CODEX if event["type"] == "response_item"),
    ]
    row = run_of(tmp_path, events)
    found = transcript_of(row.value)
    assert (found.steps[0].output, found.final) == ("import a", "done")
    assert SweAgent().read_run(row, Resources()).question == "f should return 2"


@pytest.mark.parametrize("as_lines", [False, True])
def test_a_session_of_gemini_cli_is_one_run(tmp_path: Path, as_lines: bool) -> None:
    session = {"sessionId": "s", "projectHash": "h", "startTime": "2026-01-01T00:00:00Z"}
    response = {"functionResponse": {"id": "1", "name": "read_file", "response": {"output": "import a"}}}
    call = {"id": "1", "name": "read_file", "args": {"absolute_path": "/testbed/pkg/b.py"}, "result": [response]}
    thought = {"subject": "Look", "description": "I look."}
    messages: list[dict[str, Any]] = [
        {"id": "1", "type": "user", "content": [{"text": "f should return 2"}]},
        {"id": "2", "type": "info", "content": "Update available"},
        {"id": "3", "type": "gemini", "content": "", "thoughts": [thought], "toolCalls": [call]},
        {"id": "4", "type": "gemini", "content": "done", "thoughts": []},
    ]
    lines = [session, messages[0], {"$set": {"lastUpdated": "x"}}, *messages[1:]]
    path = write(tmp_path / "run.jsonl", lines) if as_lines else tmp_path / "run.json"
    if not as_lines:
        path.write_text(json.dumps(session | {"messages": messages}))
    found = discover([path])
    (row,) = (row for part in found.ranges(2) for row in found.rows(part))
    assert isinstance(row, Row) and agent_of(row.value) is AGENT_KINDS["swe"]
    transcript = transcript_of(row.value)
    assert (transcript.prompt, transcript.final) == ("f should return 2", "done")
    (step,) = transcript.steps
    assert (step.thought, step.tool, step.output) == ("Look\nI look.", "read_file", "import a")
