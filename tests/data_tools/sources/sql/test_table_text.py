"""The text of a table is unambiguous."""

import csv
import io

from acc_megatron.data_tools.sources.sql.sqlite_readonly import Table
from acc_megatron.data_tools.sources.sql.table_text import rows_text, table_text

TABLE = Table(columns=("name", "n"), rows=(("tea", 2.5), (None, 3), ("", b"\x0f"), ("a,b\n|", "NULL")))


def test_a_markdown_table_has_one_line_for_each_row() -> None:
    assert table_text(TABLE) == (
        "| name | n |\n| --- | --- |\n| tea | 2.5 |\n| NULL | 3 |\n|  | X'0f' |\n| a,b\\n\\| | NULL |"
    )


def test_a_csv_table_reads_back_and_distinguishes_null_from_text() -> None:
    text = table_text(TABLE, "csv")
    assert text.splitlines()[:4] == ["name,n", "tea,2.5", "NULL,3", "\"\",X'0f'"]
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[1:] == [["tea", "2.5"], ["NULL", "3"], ["", "X'0f'"], ["a,b\n|", "NULL"]]
    assert text.endswith('"NULL"')


def test_separators_inside_a_cell_are_escaped() -> None:
    assert rows_text([["a|b", "c\nd\\"]]) == "a\\|b | c\\nd\\\\"


def test_an_empty_result_is_stated() -> None:
    assert rows_text([]) == "(no rows)"
    assert rows_text([[""]]) == ""
