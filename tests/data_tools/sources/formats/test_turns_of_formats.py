"""Every log format gives turns in order, with thoughts, calls and observations, up to the agent's last turn."""

import json
from typing import Any

import pytest

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Provenance, Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import turns_of
from acc_megatron.errors import Dropped

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


def test_turns_of_tagged_messages() -> None:
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


def test_turns_of_openai_tool_calls() -> None:
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


def test_a_thought_is_learned_once_under_any_key() -> None:
    called = {"tool_calls": [{"function": {"name": "bash", "arguments": '{"command": "ls"}'}}]}
    expected = [{"name": "bash", "arguments": {"command": "ls"}}]
    for given in (
        {"content": "t", "thought": "t"},
        {"content": None, "reasoning": "t"},
        {"content": "<think>t</think>"},
    ):
        for doubled in ({}, {"reasoning_content": " t"}):
            messages = [{"role": "user", "content": "Q?"}, {"role": "assistant"} | called | given | doubled]
            assert short(turns_of({"messages": messages}, RUN))[1] == ("assistant", "", "t", expected)
    text = [
        {"role": "user", "content": "Q?"},
        {"role": "assistant", "action": "ls\n", "tool_calls": "[{'function': ..}]"},
    ]
    call = {"name": "execute", "arguments": {"command": "ls"}}
    assert short(turns_of({"history": text}, RUN))[1] == ("assistant", "", "", [call])


def test_turns_of_swe_agent_steps() -> None:
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
def test_turns_of_intercode_end_with_the_answer(wrapped: bool) -> None:
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


def test_turns_of_generic_steps() -> None:
    steps = [{"tool_name": "search", "action_input": {"q": 1}, "observation": ["hit"]}]
    assert short(turns_of({"steps": steps}, RUN)) == [
        ("user", "Q?", "", []),
        ("assistant", "", "", [{"name": "search", "arguments": {"q": 1}}]),
        ("tool", '["hit"]', "", []),
        ("assistant", "A", "R", []),
    ]


def test_turns_of_openhands_events() -> None:
    events: list[dict[str, Any]] = [
        {"source": "agent", "action": "system", "args": {"content": "s"}},
        {"source": "user", "action": "message", "args": {"content": "the issue"}},
        {"source": "environment", "action": "change_agent_state", "args": {"agent_state": "running"}},
        {"source": "user", "action": "recall", "args": {"query": "the issue"}},
        {"source": "environment", "observation": "recall", "content": "Added workspace context"},
        {"id": 2, "source": "agent", "action": "run", "args": {"command": "ls", "thought": "t", "blocking": False}},
        {"id": 3, "source": "agent", "cause": 2, "observation": "run", "content": "a.py"},
        {"source": "agent", "action": "think", "args": {"thought": "hm"}},
        {"source": "agent", "observation": "think", "content": "noted"},
        {
            "source": "agent",
            "action": "edit",
            "args": {"path": "/a.py", "thought": "u", "command": None},
            "tool_call_metadata": {
                "tool_call_id": "c",
                "model_response": {
                    "choices": [
                        {"message": {"tool_calls": [{"id": "c", "function": {"name": "e", "arguments": '{"p": 1}'}}]}}
                    ]
                },
            },
        },
        {"source": "agent", "observation": "edit", "content": "done"},
        {"source": "user", "action": "message", "args": {"content": "go on"}},
        {"source": "agent", "action": "finish", "args": {"final_thought": "A.", "outputs": {}}},
    ]
    expected = [
        ("system", "s", "", []),
        ("user", "the issue", "", []),
        ("assistant", "", "t", [{"name": "run", "arguments": {"command": "ls"}}]),
        ("tool", "a.py", "", []),
        ("assistant", "", "", [{"name": "think", "arguments": {"thought": "hm"}}]),
        ("tool", "noted", "", []),
        ("assistant", "", "u", [{"name": "e", "arguments": {"p": 1}}]),
        ("tool", "done", "", []),
        ("tool", "go on", "", []),
        ("assistant", "A.", "", []),
    ]
    for key in ("history", "trajectory"):
        assert short(turns_of({key: events}, RUN)) == expected
    pairs = [[events[5], events[6]], [events[9], events[10]]]
    assert short(turns_of({"history": pairs}, RUN)) == [("user", "Q?", "", []), expected[2], expected[3], expected[6]]


def test_events_without_envelopes_have_the_turns_of_events() -> None:
    events = [
        {"action": "message", "content": "the issue", "wait_for_response": False},
        {"action": "run", "command": "ls", "thought": "t", "keep_prompt": True, "is_confirmed": "confirmed"},
        {"observation": "run", "content": "a.py\r\n", "command": "ls", "exit_code": 0},
        {"action": "finish", "outputs": {}, "thought": "A."},
    ]
    assert short(turns_of({"history": events}, RUN)) == [
        ("user", "the issue", "", []),
        ("assistant", "", "t", [{"name": "run", "arguments": {"command": "ls"}}]),
        ("tool", "a.py\n", "", []),
        ("assistant", "A.", "", []),
    ]


def test_turns_of_anthropic_parts_and_of_messages_under_other_keys() -> None:
    messages = [
        {"role": "user", "content": "a demonstration", "is_demo": True},
        {"role": "user", "content": "Q?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "tool_use", "id": "1", "name": "n", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "page"}]}],
        },
        {"role": "assistant", "content": "A."},
    ]
    for key in ("messages", "history", "trajectory", "conversation"):
        assert short(turns_of({key: messages}, RUN)) == [
            ("user", "Q?", "", []),
            ("assistant", "see", "", [{"name": "n", "arguments": {"a": 1}}]),
            ("tool", "page", "", []),
            ("assistant", "A.", "", []),
        ]


@pytest.mark.parametrize(
    "value", [{"events": []}, {"messages": []}, {"messages": [{"role": "user", "content": "x"}]}, {}]
)
def test_a_run_without_turns_is_dropped(value: dict[str, Any]) -> None:
    with pytest.raises(Dropped, match="no_turns"):
        turns_of(value, RUN)
    with pytest.raises(Dropped, match=r"no_turns: no known log format among .'messages'.; known: OpenHands events, "):
        turns_of({"messages": [5]}, RUN)
