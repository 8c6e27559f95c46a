"""Messages have one form, whichever way a row spells them; what is no list of messages is left alone."""

import json
from typing import Any

import pytest

from acc_megatron.data_tools.discover import discover
from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources, is_resource
from acc_megatron.data_tools.sources import search
from acc_megatron.data_tools.sources.messages import with_plain_messages
from acc_megatron.data_tools.sources.recognise import agent_of
from acc_megatron.data_tools.turns import turns_of

HITS = json.dumps([{"url": "https://a.org/x", "title": "X", "snippet": "about x"}])
CALL = {"name": "search", "arguments": '{"query": "q"}'}
RESULT = {"role": "tool", "content": HITS}
ASK, END = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}
CALLED: dict[str, Any] = {"role": "assistant", "content": None}
LAYOUTS: dict[str, dict[str, Any]] = {
    "openai": {"messages": [ASK, CALLED | {"tool_calls": [{"id": "1", "function": CALL}]}, RESULT, END]},
    "flat calls": {"messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END]},
    "function call": {"messages": [ASK, CALLED | {"function_call": CALL}, RESULT | {"role": "function"}, END]},
    "json text": {"messages": json.dumps([ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END])},
    "null beside reasoning": {
        "messages": [ASK, CALLED | {"reasoning_content": None}, CALLED | {"tool_calls": [CALL]}, RESULT, END]
    },
    "an empty history beside": {"messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END], "history": []},
    "history": {"history": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END]},
    "items of responses": {
        "messages": [
            ASK | {"content": [{"type": "input_text", "text": "Who?"}]},
            {"type": "reasoning", "summary": []},
            CALL | {"type": "function_call", "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": HITS},
            END | {"type": "message", "content": [{"type": "output_text", "text": "Ann."}]},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Who?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": HITS},
            {"from": "gpt", "value": "Ann."},
        ]
    },
    "sharegpt with tags": {
        "conversations": [
            {"from": "human", "value": "Who?"},
            {"from": "gpt", "value": f"<tool_call>{json.dumps(CALL)}</tool_call>"},
            {"from": "human", "value": f"<tool_response>{HITS}</tool_response>"},
            {"from": "gpt", "value": "<answer>Ann.</answer>"},
        ]
    },
}


def plain(value: dict[str, Any]) -> Row:
    return with_plain_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_search_run_in_every_spelling(name: str) -> None:
    row = plain(LAYOUTS[name] | {"answer": "Ann"})
    assert agent_of(row.value) == "search"
    found = search.read(row, Resources())
    assert (found.question, found.notes["agent_answer"].rstrip(".")) == ("Who?", "Ann")
    assert [(piece.id, piece.title) for piece in found.evidence] == [("https://a.org/x", "X")]
    calls = [json.loads(call) for turn in turns_of(row.value, found) for call in turn.tool_calls]
    assert [(call["name"], call["arguments"]) for call in calls] in (
        [("search", {"query": "q"})],
        [("search", CALL["arguments"])],
    )


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"messages": "[1, 2"},
        {"messages": "Who?"},
        {"messages": '["\\ud800"]'},
        {"messages": [1, {"role": "user"}]},
        {"trajectory": [{"action": "ls", "observation": "a"}]},
        {"messages": {"role": "user"}},
    ],
)
def test_what_is_no_list_of_messages_is_left_alone(value: dict[str, Any]) -> None:
    assert plain(value).value == value


def test_a_row_with_messages_under_any_key_is_a_run_and_no_instance(tmp_path: Any) -> None:
    row = {"instance_id": "o__t-1", "patch": "the agent's own"}
    assert is_resource(row)
    for key in ("messages", "history", "trajectory", "conversation", "conversations", "steps", "turn_history"):
        assert not is_resource(row | {key: []})
    (tmp_path / "runs.jsonl").write_text(json.dumps(row | {"conversations": []}) + "\n")
    assert not discover([tmp_path / "runs.jsonl"]).resources.instances
