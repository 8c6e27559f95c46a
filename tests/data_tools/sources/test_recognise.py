"""`--agent auto` names the agent of a row by its shape, or says what stands in it."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.recognise import agent_of, described


def chat(tool: str, **more: Any) -> dict[str, Any]:
    call = {"id": "1", "function": {"name": tool, "arguments": "{}"}}
    return {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    } | more


EVENT = {"id": 1, "source": "agent", "action": "read", "args": {"path": "a.py"}}


@pytest.mark.parametrize(
    ("value", "agent"),
    [
        (chat("web_search"), "search"),
        (chat("visit_webpage"), "search"),
        (chat("execute_sql", db_id="shop"), "sql"),
        (chat("bash"), "swe"),
        (chat("str_replace_editor"), "swe"),
        (chat("search_dir", instance_id="o__t-1"), "swe"),
        (chat("unknown_tool"), None),
        ({"question": "q", "steps": [{"tool": "search", "input": "x", "output": "y"}], "answer": "a"}, "search"),
        ({"question": "q", "database": "d", "steps": [{"tool": "run", "input": "SELECT 1", "output": "1"}]}, "sql"),
        ({"question": "q", "db": "d", "turn_history": {}}, "sql"),
        ({"trajectory": [{"action": "ls", "observation": "a"}]}, "swe"),
        ({"history": [{"role": "user", "content": "q"}]}, "swe"),
        ({"instance_id": "o__t-1", "history": [EVENT]}, "swe"),
        ({"instance_id": "o__t-1", "history": [[EVENT, {"observation": "read", "content": "x"}]]}, "swe"),
        ({"trajectory": [EVENT]}, "swe"),
        ({"info": {"exit_status": "Submitted"}, "messages": [{"role": "user", "content": "q"}]}, "swe"),
        ({"foo": 1}, None),
        ({}, None),
    ],
)
def test_the_agent_is_told_from_the_row(value: dict[str, Any], agent: str | None) -> None:
    assert agent_of(value) == agent


def test_what_is_not_known_is_described_by_what_stands_in_it() -> None:
    assert described({"foo": 1, "bar": 2}) == "keys seen: 'foo', 'bar'"
    assert described({}) == "keys seen: none"
    seen = described(chat("unknown_tool", id=3))
    assert seen == "keys seen: 'messages', 'id'; 2 messages of roles 'user', 'assistant'; tools: 'unknown_tool'"
    assert described({"conversations": [{"from": "human", "value": "x"}]}).endswith(
        "1 conversations with 'from', 'value'"
    )
    for value in ({"dialogs": []}, {"question": "q", "context": []}, {"format_version": 1}):
        assert agent_of(value) is None and "'convert' takes triples" in described(value)
    assert len(described({f"{'x' * 1000}{i}": 1 for i in range(1000)})) < 2000
