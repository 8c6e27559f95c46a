"""Turns of every shape: thought, call and observation in order, ending with the agent."""

import json
from typing import Any

import pytest

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Dropped, Provenance, Trajectory
from acc_megatron.data_tools.turns import turns_of

RUN = Trajectory(
    id="t",
    agent="search",
    question="Q?",
    evidence=(),
    distractors=(),
    reasoning="R",
    reasoning_source="agent",
    answer="A",
    ground_truth="A",
    provenance=Provenance(file="f", line=1, sha256="0"),
)


def short(turns: tuple[Turn, ...]) -> list[tuple[str, str, str, list[Any]]]:
    assert all(turn.supervised == (turn.role == "assistant") for turn in turns)
    return [(turn.role, turn.text, turn.reasoning, [json.loads(call) for call in turn.tool_calls]) for turn in turns]


def test_tagged_messages() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "use <tool_call>\n\nUser: Q?"},
        {"role": "assistant", "content": '<think>t</think>\n<tool_call>\n{"name": "search"}\n</tool_call>'},
        {"role": "user", "content": "<tool_response>\none\n</tool_response><tool_response>two</tool_response>"},
        {"role": "assistant", "content": "<think>u</think>\n<answer>\nA.\n</answer>"},
        {"role": "user", "content": "thanks"},
    ]
    assert short(turns_of({"messages": messages}, RUN)) == [
        ("system", "s", "", []),
        ("user", "use <tool_call>\n\nUser: Q?", "", []),
        ("assistant", "", "t", [{"name": "search"}]),
        ("tool", "one", "", []),
        ("tool", "two", "", []),
        ("assistant", "A.", "u", []),
    ]


def test_openai_tool_calls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "visit", "arguments": '{"url": "x"}'}}
    broken = {"function": {"name": "visit", "arguments": "{broken"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Q?"}]},
        {"role": "assistant", "content": None, "reasoning_content": "t", "tool_calls": [call, broken]},
        {"role": "tool", "tool_call_id": "1", "content": "page"},
        {"role": "assistant", "content": "A."},
    ]
    assert short(turns_of({"messages": messages}, RUN)) == [
        ("user", "Q?", "", []),
        (
            "assistant",
            "",
            "t",
            [{"name": "visit", "arguments": {"url": "x"}}, {"name": "visit", "arguments": "{broken"}],
        ),
        ("tool", "page", "", []),
        ("assistant", "A.", "", []),
    ]


def test_swe_agent_steps() -> None:
    value = {
        "history": [
            {"role": "system", "content": "setting"},
            {"role": "user", "content": "a demonstration", "is_demo": True},
            {"role": "user", "content": "the issue"},
        ],
        "trajectory": [
            {"thought": "t\n", "action": "ls\n", "observation": "a.py\r\n"},
            {"thought": "u", "action": "submit", "observation": "diff"},
        ],
    }
    assert short(turns_of(value, RUN)) == [
        ("system", "setting", "", []),
        ("user", "the issue", "", []),
        ("assistant", "", "t", [{"name": "execute", "arguments": {"command": "ls"}}]),
        ("tool", "a.py\n", "", []),
        ("assistant", "", "u", [{"name": "execute", "arguments": {"command": "submit"}}]),
    ]


@pytest.mark.parametrize("wrapped", [True, False])
def test_intercode_turns_end_in_the_answer(wrapped: bool) -> None:
    history = {"actions": ["SELECT 1"], "observations": ["[(1,)]"]}
    if wrapped:
        actions, observations = ["execute[SELECT 1]", "submit"], ["[(1,)]", "[(1,)]"]
        history = {"thoughts": ["t", "done"], "actions": actions, "observations": observations}
    thought, last = ("t", "done") if wrapped else ("", "")
    assert short(turns_of({"turn_history": history}, RUN)) == [
        ("user", "Q?", "", []),
        ("assistant", "", thought, [{"name": "sql", "arguments": {"query": "SELECT 1"}}]),
        ("tool", "[(1,)]", "", []),
        ("assistant", "A", last, []),
    ]


def test_generic_steps() -> None:
    steps = [{"tool": "search", "input": {"q": 1}, "output": ["hit"]}]
    assert short(turns_of({"steps": steps}, RUN)) == [
        ("user", "Q?", "", []),
        ("assistant", "", "", [{"name": "search", "arguments": {"q": 1}}]),
        ("tool", '["hit"]', "", []),
        ("assistant", "A", "R", []),
    ]


@pytest.mark.parametrize(
    "value", [{"events": []}, {"messages": []}, {"messages": [{"role": "user", "content": "x"}]}, {}]
)
def test_runs_without_turns_are_dropped(value: dict[str, Any]) -> None:
    with pytest.raises(Dropped, match="no_turns"):
        turns_of(value, RUN)
    with pytest.raises(Dropped, match="malformed"):
        turns_of({"messages": [5]}, RUN)
