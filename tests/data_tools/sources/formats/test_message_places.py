"""Messages are found under any of the names and in any of the places in which rows keep them."""

import json
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources

CALL = {"id": "1", "function": {"name": "visit", "arguments": json.dumps({"url": "a.org"})}}
ASK = {"role": "user", "content": "When was she born?"}
END = {"role": "assistant", "content": "1903"}
RUN = [
    ASK,
    {"role": "assistant", "content": "I open.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "She was born in 1903."},
    END,
]
PLACES: list[dict[str, Any]] = [
    *({key: RUN} for key in ("messages", "chat", "dialogue", "turns", "trace", "rollout", "transcript", "events")),
    {"prompt": RUN[:1], "completion": RUN[1:]},
    {"prompt": RUN[:1], "response": RUN[1:]},
    {"prompt": RUN[:-1], "response": END},
    {"input": RUN[:-1], "output": "1903"},
    {"data": {"messages": RUN}},
    {"output": {"messages": RUN}},
    {"request": {"model": "m", "messages": RUN[:-1]}, "response": {"choices": [{"message": END}]}},
]
OTHERS: list[dict[str, Any]] = [
    {}, {"chat": []}, {"turns": 4}, {"events": ["a"]}, {"data": {"messages": "text"}}, {"log": [{"text": "a"}]},
    {"prompt": "text", "completion": RUN[1:]}, {"request": {"messages": []}, "response": {"choices": [None]}},
]  # fmt: skip


def row_of(value: dict[str, Any]) -> Row:
    row = Row(value={**value, "answer": "1903"}, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32)
    return with_openai_messages(row)


@pytest.mark.parametrize("value", PLACES)
def test_a_run_is_read_wherever_its_messages_are(value: dict[str, Any]) -> None:
    row = row_of(value)
    assert agent_of(row.value) is AGENT_KINDS["search"]
    run = AGENT_KINDS["search"].read(row, Resources())
    assert (run.question, run.reasoning, run.notes["agent_answer"]) == ("When was she born?", "I open.", "1903")
    assert [piece.text for piece in run.evidence] == ["a.org\n\nShe was born in 1903."]


@pytest.mark.parametrize("value", OTHERS)
def test_a_row_without_messages_stays_as_it_is(value: dict[str, Any]) -> None:
    assert row_of(value).value == {**value, "answer": "1903"}


def test_messages_under_their_usual_name_come_first() -> None:
    assert row_of({"messages": RUN[:1], "chat": RUN}).value["messages"] == [ASK]
