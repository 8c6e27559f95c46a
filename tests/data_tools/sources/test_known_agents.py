"""`--agent auto` recognises the agent kind of a row, or describes the row."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.known_agents import agent_of, describe_row


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
def test_the_agent_kind_is_recognised_from_the_row(value: dict[str, Any], agent: str | None) -> None:
    found = agent_of(value)
    assert (found and found.name) == agent


def test_a_row_of_no_known_kind_is_described_by_its_contents() -> None:
    assert describe_row({"foo": 1, "bar": 2}).startswith(
        "keys: 'foo', 'bar'; no known format (docs/data.md lists them: "
    )
    assert describe_row({}).startswith("keys: none; no known format")
    seen, _, advice = describe_row(chat("unknown_tool", id=3)).rpartition("; nearest: ")
    assert seen == "keys: 'messages', 'id'; 2 messages of roles 'user', 'assistant'; tools: 'unknown_tool'"
    assert advice.startswith("a run in the format chat messages, whose tools no agent kind knows; add 'db'")
    assert "; 1 conversations with 'from', 'value'; nearest: " in describe_row(
        {"conversations": [{"from": "human", "value": "x"}]}
    )
    seen = describe_row({"query": "q", "turn_history": {}})
    assert "nearest: a SQL run (InterCode turn history); add 'question', 'db'" in seen and "--resources" in seen
    for value in ({"dialogs": []}, {"question": "q", "context": []}, {"format_version": 1}):
        assert agent_of(value) is None and "convert' takes triples" in describe_row(value)
    assert len(describe_row({f"{'x' * 1000}{i}": 1 for i in range(1000)})) < 2000


@pytest.mark.parametrize("row", [{"gold": "SELECT COUNT(*) FROM t"}, {"gold_sql": "SELECT 1", "answer": "3"}])
def test_a_sql_question_without_a_database_is_no_search_run(row: dict[str, Any]) -> None:
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "```sql\nSELECT 1\n```"}]
    value = row | {"question": "How many?", "messages": turns}
    assert agent_of(value) is None and "add 'db' and 'gold_sql' to a SQL run" in describe_row(value)
