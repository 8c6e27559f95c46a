"""Tables and query results as text, in one stated form used for evidence, answers and comparison alike."""

from collections.abc import Sequence

from acc_megatron.data_tools.sqlite_readonly import Table, Value

# the sentence that tells the reader of a question which form an answer takes
ANSWER_FORM = "Give the result rows, one per line, values separated by ' | ', NULL for a missing value."
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "|": "\\|"})


def table_text(table: Table) -> str:
    """A complete table: the line of column names, then one line a row, cells joined by ' | '."""
    return "\n".join(_line(cells) for cells in (table.columns, *table.rows))


def rows_text(rows: Sequence[Sequence[Value]]) -> str:
    """Rows without a heading, one line each; '(no rows)' when there is none."""
    return "\n".join(_line(row) for row in rows) if rows else "(no rows)"


def cell_text(value: Value) -> str:
    """One value: NULL, numbers as Python writes them, bytes as X'hex'; newline, '|' and backslash escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return str(value).translate(_ESCAPES)


def _line(cells: Sequence[Value]) -> str:
    return " | ".join(cell_text(cell) for cell in cells)
