"""A new log format needs its own file and its registration; recognition, steps and turns follow."""

import json
from dataclasses import replace
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats import known_formats
from acc_megatron.data_tools.sources.formats.known_formats import turns_of, with_openai_messages
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources

HITS = json.dumps([{"url": "https://a.org/x", "title": "X", "snippet": "about x"}])


class Speakers(MessageLog):
    """Messages as {speaker: text}; the agent writes a call as `tool: query`."""

    name = "speakers"

    def recognises_list(self, items: list[Message]) -> bool:
        return any("robot" in item for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        return [self._message(*next(iter(item.items()))) for item in items]

    def _message(self, speaker: str, text: str) -> Message:
        tool, mark, query = text.partition(": ")
        if speaker == "robot" and mark:
            call = {"function": {"name": tool, "arguments": {"query": query}}}
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        return {"role": {"robot": "assistant", "tool": "tool"}.get(speaker, "user"), "content": text}


class Actions(LogFormat):
    """Lists of tool, query and output under `actions`."""

    name = "actions"

    def recognises(self, value: dict[str, Any]) -> bool:
        return "actions" in value

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        steps = [Step(tool=tool, arguments={"query": query}, output=output) for tool, query, output in value["actions"]]
        return Transcript(prompt=value["task_text"], steps=tuple(steps), final=value["said"])

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        turns = [Turn(role="user", text=value["task_text"])]
        for tool, query, output in value["actions"]:
            turns += [agent_turn(calls=(call_text(tool, {"query": query}),)), Turn(role="tool", text=output)]
        return [*turns, agent_turn(value["said"])]


@pytest.mark.parametrize(
    ("new_format", "value"),
    [
        (Speakers(), {"messages": [{"user": "Who?"}, {"robot": "search: q"}, {"tool": HITS}, {"robot": "Ann."}]}),
        (Actions(), {"task_text": "Who?", "actions": [["search", "q", HITS]], "said": "Ann."}),
    ],
)
def test_a_registered_format_is_read_by_the_known_agent_kinds(
    new_format: LogFormat, value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = Row(value=value | {"answer": "Ann"}, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32)
    assert agent_of(with_openai_messages(raw).value) is None
    monkeypatch.setattr(known_formats, "LOG_FORMATS", [new_format, *known_formats.LOG_FORMATS])
    row = with_openai_messages(replace(raw, value=dict(raw.value)))  # rows are recognised once each
    assert agent_of(row.value) is AGENT_KINDS["search"]
    run = AGENT_KINDS["search"].read(row, Resources())
    assert (run.question, [piece.id for piece in run.evidence]) == ("Who?", ["https://a.org/x"])
    turns = turns_of(row.value, run)
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "Who?"),
        ("assistant", ""),
        ("tool", HITS),
        ("assistant", "Ann."),
    ]
    assert turns[1].tool_calls == (call_text("search", {"query": "q"}),)
