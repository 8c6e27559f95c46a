"""A table has one text, and its cells can be told apart in it."""

from acc_megatron.data_tools.sqlite_readonly import Table
from acc_megatron.data_tools.table_text import rows_text, table_text


def test_a_table_is_its_columns_and_a_line_a_row() -> None:
    table = Table(columns=("name", "n"), rows=(("tea", 2.5), (None, 3), ("", b"\x0f")))
    assert table_text(table) == "name | n\ntea | 2.5\nNULL | 3\n | X'0f'"


def test_separators_inside_a_cell_are_escaped() -> None:
    assert rows_text([["a|b", "c\nd\\"]]) == "a\\|b | c\\nd\\\\"


def test_an_empty_result_says_so() -> None:
    assert rows_text([]) == "(no rows)"
    assert rows_text([[""]]) == ""
