"""The rows that an agent saw are read from every form of text, so that other rows than the gold result are found."""

import json

import pytest

from acc_megatron.data_tools.sources.sql.observed_text import states_other_rows

FORMS = {
    "objects": json.dumps([{"name": "tea"}, {"name": "salt"}]),
    "columns and rows": json.dumps({"columns": ["name"], "rows": [["tea"], ["salt"]]}),
    "JSON lines": '{"name": "tea"}\n{"name": "salt"}',
    "tuples": "('tea',)\n('salt',)",
    "pandas": "   name\n0   tea\n1  salt",
    "CSV": "name\ntea\nsalt",
    "Markdown": "| name |\n|---|\n| tea |\n| salt |",
    "psql": " name \n------\n tea\n salt\n(2 rows)",
    "MySQL": "+------+\n| name |\n+------+\n| tea  |\n| salt |\n+------+\n2 rows in set (0.00 sec)",
    "a label": "Result:\n[('tea',), ('salt',)]",
    "a tag": "<result>\n[['tea'], ['salt']]\n</result>",
    "a sentence before": "Query executed successfully. Results: [('tea',), ('salt',)]",
    "a sentence before a table": "Query executed successfully.\n\nname\ntea\nsalt",
    "values": "['tea', 'salt']",
    "fields": "name: tea\nname: salt",
    "DuckDB": "┌─────────┐\n│  name   │\n│ varchar │\n├─────────┤\n│ tea     │\n│ salt    │\n└─────────┘",
}
EMPTY = [
    "[]",
    "Empty set (0.00 sec)",
    "(0 rows)",
    "No rows returned.",
    "Query executed successfully. No results.",
    "0 rows",
]
SENTENCES = ["tea\nsalt", "There are two names:\ntea\nsalt", "The query ran.", "name", "names\ntea and oil"]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_and_other_rows_are_told_apart(form: str) -> None:
    text = FORMS[form]
    assert states_other_rows(text, [["tea"], ["salt"]], ordered=False, names={"name"}) is False
    assert states_other_rows(text, [["tea"], ["oil"]], ordered=False, names={"name"}) is True
    assert states_other_rows(text, [["tea"]], ordered=False, names={"name"}) is True


@pytest.mark.parametrize("text", EMPTY)
def test_a_text_that_says_that_there_are_no_rows_states_none(text: str) -> None:
    assert states_other_rows(text, [["tea"]], ordered=False) is True
    assert states_other_rows(text, [], ordered=False) is False


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_states_no_rows(text: str) -> None:
    assert states_other_rows(text, [["oil"]], ordered=False, names={"price"}) is None


@pytest.mark.parametrize(("text", "rows"), [("36", [[36]]), ("yes\nno", [["yes"], ["no"]]), ("yes\nno", [["no"]])])
def test_a_value_that_is_also_a_word_of_the_query_can_be_a_value(text: str, rows: list[list[object]]) -> None:
    assert states_other_rows(text, rows, ordered=False, names={"36", "yes"}) is False


def test_columns_of_a_data_frame_are_separated_by_two_spaces() -> None:
    text = "        name  price\n0  green tea    2.0\n1       salt    1.0"
    assert states_other_rows(text, [["green tea", 2], ["salt", 1]], ordered=True) is False
    assert states_other_rows(text, [["salt", 1], ["green tea", 2]], ordered=True) is True
