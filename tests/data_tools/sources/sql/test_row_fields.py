"""The fields of SQL rows are read under the names of the benchmarks."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.sql.observed_text import states_other_rows
from acc_megatron.data_tools.sources.sql.row_fields import database_of, gold_query_of, question_of, with_hint
from acc_megatron.errors import Dropped

BIRD = {"db_id": "shop", "question": "How many?", "evidence": "many refers to n > 3", "SQL": "SELECT 1"}
LIVE = {
    "selected_database": "shop", "query": "How many?", "sol_sql": ["SELECT 1"], "external_knowledge": [3, 4],
    "category": "Query", "amb_user_query": "Many?",
}  # fmt: skip
SPIDER2 = {"db": "shop", "instruction": "How many?", "external_knowledge": "shop.md", "gold_sql": "SELECT 1"}


@pytest.mark.parametrize("row", [BIRD, LIVE, SPIDER2, {"db": "shop", "query": "How many?", "gold": "SELECT 1"}])
def test_database_question_and_gold_query_are_read(row: dict[str, Any]) -> None:
    assert (database_of(row), question_of(row), gold_query_of(row)) == ("shop", "How many?", "SELECT 1")


@pytest.mark.parametrize(
    "database",
    [
        *({key: "shop"} for key in ("database_id", "dbId", "databaseId", "DB", "dbName", "DB_NAME", "Database")),
        {"sqlite_path": "dbs/shop.sqlite"},
        {"db_path": "dbs/shop/shop.sqlite"},
        {"database_path": "C:\\dbs\\shop.db"},
        {"extra_info": {"db_id": "shop"}},
    ],
)
def test_the_database_is_read_under_its_names_and_from_a_path(database: dict[str, Any]) -> None:
    assert database_of(database) == "shop"


@pytest.mark.parametrize(
    "gold",
    [
        *(
            {key: "SELECT 1"}
            for key in ("target_sql", "reference_sql", "goldSQL", "golden_query", "ground_truth", "label")
        ),
        {"gold_sql": {"sql": "SELECT 1"}},
        {"gold_sql": "```sql\nSELECT 1\n```"},
        {"label": True, "extra_info": {"gold_sql": "SELECT 1"}},
        {"reward_spec": {"ground_truth": "SELECT 1"}, "ground_truth": "one"},
        {"reward_model": {"ground_truth": {"target": "SELECT 1"}}},
    ],
)
def test_the_gold_query_is_read_under_its_names_and_places(gold: dict[str, Any]) -> None:
    assert gold_query_of(gold) == "SELECT 1"


def test_a_hint_belongs_to_the_question_once() -> None:
    asked = with_hint("How many?", BIRD)
    assert asked == "How many?\n\nHint: many refers to n > 3"
    assert with_hint("How many? Many  refers to n > 3.", BIRD) == "How many? Many  refers to n > 3."
    assert with_hint("How many?", {"hints": ["a is b", "c is d"]}) == "How many?\n\nHint: a is b\nc is d"
    assert with_hint("How many?", LIVE) == with_hint("How many?", SPIDER2) == "How many?"


ROWS = [["tea", 2.0], ["salt", 1]]


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        ("| name | price |\n| --- | --- |\n| tea | 2.00 |\n| salt | 1 |", False),
        (" name | price\n------+-------\n tea  | 2\n salt | 1\n(2 rows)", False),
        ("name,price\ntea,2\nsalt,1", False),
        ("tea|2.0\nsalt|1", False),
        ('[{"name": "tea", "price": 2}, {"name": "salt", "price": 1}]', False),
        ('{"rows": [["salt", 1], ["tea", 2]]}', False),
        ("| name | price |\n| --- | --- |\n| tea | 3 |\n| salt | 1 |", True),
        ('[{"name": "tea", "price": 2}]', True),
        ("tea|2.0\nsalt|7", True),
        ("tea|2.0\n... 1 more rows", None),
        ("The query gave tea and salt.", None),
        ("", None),
    ],
)
def test_rows_are_read_from_the_text_of_a_table(text: str, differs: bool | None) -> None:
    assert states_other_rows(text, ROWS, ordered=False) is differs


@pytest.mark.parametrize(("text", "differs"), [("3", False), ("count\n3", False), ("2", True), ("3 teachers", None)])
def test_one_number_is_a_result(text: str, differs: bool | None) -> None:
    assert states_other_rows(text, [[3]], ordered=False) is differs


@pytest.mark.parametrize(
    "key", ["goldSql", "golden_sqls", "reference_query", "correctSQL", "gold_answer_sql", "answer", "solution"]
)
def test_the_gold_query_is_read_under_names_of_such_words(key: str) -> None:
    assert gold_query_of({key: "SELECT 1"}) == "SELECT 1"


@pytest.mark.parametrize("row", [{"pred_sql": "SELECT 1"}, {"answer": "two schools"}, {"target_schema": "SELECT 1"}])
def test_another_field_is_no_gold_query(row: dict[str, Any]) -> None:
    with pytest.raises(Dropped, match="no gold query"):
        gold_query_of(row)
