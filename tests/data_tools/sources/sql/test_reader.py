"""A SQL run gives the complete tables of successful queries, if the gold query gives the recorded result here."""

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.common.json_rows import Row, read_jsonl
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.sql import reader as sql
from acc_megatron.data_tools.sources.sql.agent import SqlAgent
from acc_megatron.errors import Dropped

DATA = SHARED_DATA / "sql"
CHEAP = "SELECT name, price FROM GOODS WHERE price < 5"
SEEN = "[('tea', 2.0), ('salt', 1.0)]"


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    path = tmp_path / "Shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """CREATE TABLE Goods (name TEXT, price REAL); INSERT INTO Goods VALUES ('tea', 2), ('salt', 1), ('oil', 9);
        CREATE TABLE Staff (name TEXT); INSERT INTO Staff VALUES ('Ann'); CREATE TABLE Unused (a);"""
    )
    connection.close()
    found = Resources()
    found.add_database(path)
    return found


def run(steps: list[tuple[str, str]] | None = None, history: dict[str, Any] | None = None, **changes: Any) -> Row:
    steps = steps or [("SHOW TABLES", "[('goods',)]"), (CHEAP, SEEN)]
    turns = {
        "actions": [action for action, _ in steps],
        "observations": [observation for _, observation in steps],
        "rewards": [0.0] * (len(steps) - 1) + [1.0],
    }
    value = {
        "db": "shop",
        "question": "What is cheap?",
        "gold_sql": "SELECT name, price FROM Goods WHERE price < 5",
        "gold_result": [["salt", 1], ["tea", 2.0]],
        "turn_history": turns | (history or {}),
    } | changes
    return Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="cd" * 32)


def read(row: Row, resources: Resources) -> Trajectory:
    assert SqlAgent().recognises(row.value)
    return sql.read(row, resources)


def test_evidence_is_every_complete_table_that_successful_queries_named(resources: Resources) -> None:
    steps = [
        ("SELECT * FROM unused", "Error executing query: no"),
        ("DESCRIBE unused", "[]"),
        ("execute[SELECT name FROM goods]", "[('tea',)]"),
        ("SELECT name FROM STAFF", "[('Ann',)]"),
        ("SELECT table_name FROM information_schema.tables", "[('goods',)]"),
        ("submit", SEEN),
    ]
    trajectory = read(run(steps), resources)
    assert [piece.id for piece in trajectory.evidence] == ["shop.Goods", "shop.Staff"]
    assert (
        trajectory.evidence[0].text == "| name | price |\n| --- | --- |\n| tea | 2.0 |\n| salt | 1.0 |\n| oil | 9.0 |"
    )
    assert trajectory.distractors == () and trajectory.notes["missing_tables"] == []


def test_the_answer_is_the_gold_result_as_text(resources: Resources) -> None:
    trajectory = read(run(), resources)
    assert trajectory.answer == trajectory.ground_truth == "salt | 1\ntea | 2.0"
    assert trajectory.question.startswith("What is cheap?\n\n") and "' | '" in trajectory.question


def test_reasoning_is_the_thoughts_or_otherwise_the_queries_and_its_source_is_recorded(resources: Resources) -> None:
    thoughtful = read(run(history={"thoughts": ["I look.", "", "I see."]}), resources)
    silent = read(run(), resources)
    assert (thoughtful.reasoning, thoughtful.reasoning_source) == ("I look.\n\nI see.", "agent")
    assert (silent.reasoning, silent.reasoning_source) == (CHEAP, "agent_actions")


def test_a_missing_table_is_recorded_and_drops_the_row_only_if_no_table_is_left(resources: Resources) -> None:
    steps = [("SELECT * FROM players", SEEN), ("SELECT * FROM goods", SEEN)]
    assert read(run(steps), resources).notes["missing_tables"] == ["players"]
    with pytest.raises(Dropped) as dropped:
        read(run(steps[:1]), resources)
    assert dropped.value.reason == "missing_table"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"history": {"rewards": [1.0, 1 / 7]}}, "wrong_answer"),
        ({"history": {"rewards": [0.0, 0.9999999]}}, "wrong_answer"),
        ({"history": {"rewards": [0.0, True]}}, "malformed"),
        ({"history": {"rewards": []}}, "malformed"),
        ({"history": {"observations": ["one"]}}, "malformed"),
        ({"history": {"actions": [1, 2]}}, "malformed"),
        ({"history": {"thoughts": "text"}}, "malformed"),
        ({"gold_result": [["salt", 1]]}, "gold_mismatch"),
        ({"gold_result": ["salt"]}, "malformed"),
        ({"gold_error": "no such table"}, "no_ground_truth"),
        ({"gold_sql": None}, "malformed"),
        ({"gold_sql": "DROP TABLE Goods"}, "database_not_allowed"),
        ({"gold_sql": "SELECT * FROM nowhere"}, "database_sql_error"),
        ({"db": "../../etc/passwd"}, "no_database"),
        ({"steps": [("SHOW TABLES", "tables")]}, "no_evidence"),
    ],
)
def test_a_run_that_cannot_be_verified_is_dropped_with_a_reason(
    resources: Resources, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Dropped) as dropped:
        read(run(**changes), resources)
    assert dropped.value.reason == reason


def test_results_are_compared_as_multisets_unless_the_query_orders_them(resources: Resources) -> None:
    ordered = "SELECT name, price FROM Goods WHERE price < 5 ORDER BY price DESC"
    with pytest.raises(Dropped, match="gold_mismatch"):
        read(run(gold_sql=ordered), resources)
    assert read(run(gold_sql=ordered, gold_result=[["tea", 2], ["salt", 1]]), resources)
    with pytest.raises(Dropped, match="gold_mismatch"):
        read(run([(CHEAP, "[('salt', 1), ('tea', 2)]")], gold_sql=ordered, gold_result=None), resources)
    with pytest.raises(Dropped, match="gold_mismatch"):
        read(run(gold_result=[["salt", 1], ["salt", 1]]), resources)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1_234_567_891.0, 1_234_567_891, True),
        (1_234_567_891, 1_234_567_892, False),
        (0.1 + 0.2, 0.3, True),
        (0.3, 0.3001, False),
        ("1", 1, False),
        (None, "None", False),
        (10**400, 1, False),
    ],
)
def test_cells_of_different_types_are_equal_only_if_both_are_numbers(left: object, right: object, same: bool) -> None:
    assert sql.same_result([[left]], [[right]], ordered=True) is same


@pytest.mark.parametrize(
    "seen",
    ["[(2,)]", "[]", "[('tea', 2.0)]", "[('tea', 2.0), ('salt', 1.0), ('oil', 9.0)]", '[["tea", 3], ["salt", 1]]'],
)
def test_a_run_that_was_rewarded_for_other_rows_than_the_gold_query_gives_here_is_dropped(
    resources: Resources, seen: str
) -> None:
    for row in (
        run([(CHEAP, seen)], gold_result=None),
        run([(CHEAP, seen), ("submit", seen)], gold_result=None),
        calls((CHEAP, seen), success=True),
    ):
        with pytest.raises(Dropped) as dropped:
            read(row, resources)
        assert dropped.value.reason == "gold_mismatch" and "tea | 2.0" in dropped.value.detail


@pytest.mark.parametrize(
    "seen",
    ["[('salt', 1), ('tea', 2)]", "[('tea', Decimal('2.0')), ('salt', Decimal('1.0'))]", '[["salt", 1], ["tea", 2]]'],
)
def test_other_spellings_of_the_gold_result_are_the_same_rows(resources: Resources, seen: str) -> None:
    assert read(run([(CHEAP, seen)], gold_result=None), resources).answer == "tea | 2.0\nsalt | 1.0"
    checked_afterwards = calls((CHEAP, seen), ("SELECT name FROM Goods", "[('tea',)]"), success=True)
    assert read(checked_afterwards, resources).answer == "tea | 2.0\nsalt | 1.0", "one of the observations is enough"


def test_an_empty_result_counts_only_if_the_tables_of_the_gold_query_have_rows(resources: Resources) -> None:
    for gold_sql in ("SELECT a FROM Unused", "SELECT g.name FROM Goods g JOIN Unused u ON u.a = g.name"):
        with pytest.raises(Dropped) as dropped:
            read(run([(gold_sql, "[('x',)]")], gold_sql=gold_sql, gold_result=None), resources)
        assert dropped.value.reason == "empty_gold_table" and "Unused" in dropped.value.detail
    none = "SELECT name FROM Goods WHERE price > 100"
    assert read(run([(none, "[]")], gold_sql=none, gold_result=[]), resources).answer == "(no rows)"


def test_the_tables_of_the_gold_query_are_evidence_even_if_the_run_never_queried_them(resources: Resources) -> None:
    gold = "SELECT g.name FROM Staff s JOIN Goods g ON s.name = 'Ann' WHERE g.price = 2"
    row = run([("SELECT name FROM Goods WHERE price = 2", "[('tea',)]")], gold_sql=gold, gold_result=None)
    assert [piece.id for piece in read(row, resources).evidence] == ["shop.Goods", "shop.Staff"]


def test_without_a_recorded_result_the_gold_query_gives_it(resources: Resources) -> None:
    row = run()
    del row.value["gold_result"]
    assert read(row, resources).answer == "tea | 2.0\nsalt | 1.0"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_the_rewarded_real_runs_compile_except_one_that_saw_another_order() -> None:
    """MySQL orders air dates as dates, SQLite as text: the gold query gives another order than the run saw."""
    resources = discover([DATA]).resources
    found: Counter[str] = Counter()
    for row in read_jsonl(DATA / "intercode_spider.jsonl"):
        assert isinstance(row, Row)
        try:
            found[read(row, resources).reasoning_source] += 1
            assert row.value["summary"]["max_reward"] == 1.0
        except Dropped as dropped:
            found[dropped.reason] += 1
            is_other_order = "ORDER BY Original_air_date" in row.value["gold_sql"]
            assert is_other_order or row.value["summary"]["max_reward"] < 1.0
    assert found == {"agent": 83, "agent_actions": 81, "gold_mismatch": 1, "wrong_answer": 27}


def calls(*steps: tuple[str, str], **changes: Any) -> Row:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is cheap?"}]
    for i, (query, output) in enumerate(steps):
        call = {"id": str(i), "function": {"name": "execute_sql", "arguments": json.dumps({"query": query})}}
        messages.append({"role": "assistant", "content": "I ask.", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": str(i), "content": output})
    gold = "SELECT name, price FROM Goods WHERE price < 5"
    value = {"db_id": "shop", "gold_sql": gold, "messages": messages} | changes
    return Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32)


RIGHT = ("SELECT name, price FROM Goods WHERE price <= 2", "tea 2, salt 1")
WRONG = ("SELECT name, price FROM goods", "...")


def test_a_run_of_tool_calls_is_verified_by_its_row_or_by_its_last_query(resources: Resources) -> None:
    failed = ("SELECT * FROM Unused", "sqlite3.OperationalError: no such table")
    trajectory = read(calls(WRONG, failed, RIGHT), resources)
    assert [piece.id for piece in trajectory.evidence] == ["shop.Goods"]
    assert trajectory.question.startswith("What is cheap?\n\n") and trajectory.reasoning == "I ask.\n\nI ask.\n\nI ask."
    assert read(calls(WRONG, success=True), resources).answer == "tea | 2.0\nsalt | 1.0"
    by_path = read(calls(RIGHT, db_id="data/shop/SHOP.sqlite"), resources)
    assert [piece.id for piece in by_path.evidence] == ["shop.Goods"], "only the file name of a path is used"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (calls(RIGHT, WRONG), "wrong_answer"),
        (calls(RIGHT, reward=0.5), "wrong_answer"),
        (calls(RIGHT, success=False), "wrong_answer"),
        (calls(("DROP TABLE Goods", "ok")), "no_evidence"),
        (calls(RIGHT, gold_sql=None), "malformed"),
        (calls(RIGHT, db_id="../shop"), "no_database"),
        (calls(("SELECT name FROM Goods; DROP TABLE Goods", "ok")), "database_sql_error"),
    ],
)
def test_a_run_of_tool_calls_that_is_not_verified_is_dropped_with_a_reason(
    row: Row, reason: str, resources: Resources
) -> None:
    with pytest.raises(Dropped) as dropped:
        read(row, resources)
    assert dropped.value.reason == reason


def test_generic_steps_can_be_a_sql_run_and_tables_can_be_csv(resources: Resources) -> None:
    resources.table_format = "csv"
    steps = [{"tool": "sql", "input": RIGHT[0], "output": SEEN}]
    row = calls(question="What is cheap?", steps=steps)
    del row.value["messages"]
    assert read(row, resources).evidence[0].text == "name,price\ntea,2.0\nsalt,1.0\noil,9.0"


@pytest.mark.parametrize(
    "written", ["USE shop; {};", 'sqlite3 -header shop.sqlite "{}"', "psql shop -c '{}'", "SET a = 1;\n{}"]
)
def test_a_query_in_a_script_or_a_shell_command_is_a_query(resources: Resources, written: str) -> None:
    found = read(calls((written.format(RIGHT[0]), RIGHT[1])), resources)
    assert [piece.id for piece in found.evidence] == ["shop.Goods"] and found.answer == "tea | 2.0\nsalt | 1.0"


def test_an_exploration_does_not_contradict_a_last_observation_that_cannot_be_read(resources: Resources) -> None:
    exploration = ("SELECT name, price FROM Goods LIMIT 1", "[('tea', 2.0)]")
    assert read(calls(exploration, (CHEAP, "Tea and salt are cheap."), success=True), resources).evidence
    with pytest.raises(Dropped, match="gold_mismatch"):
        read(calls(exploration, (CHEAP, "[('oil', 9.0)]"), success=True), resources)
