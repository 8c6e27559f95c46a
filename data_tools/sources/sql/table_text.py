"""Tables as Markdown or CSV text, and query results in the form of answers."""

from collections.abc import Sequence
from typing import Literal

from acc_megatron.data_tools.sources.sql.sqlite_readonly import Table, Value

TableFormat = Literal["markdown", "csv"]
TABLE_FORMATS: tuple[TableFormat, ...] = ("markdown", "csv")
# ends every question
ANSWER_FORM = "Give the result rows, one per line, values separated by ' | ', NULL for a missing value."
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "|": "\\|"})


def table_text(table: Table, table_format: TableFormat = "markdown") -> str:
    """A complete table with its column names, as GitHub Markdown or CSV (RFC 4180 with \\n at the end of lines)."""
    if table_format == "csv":
        return "\n".join(",".join(map(_csv_cell, cells)) for cells in (table.columns, *table.rows))
    delimiter = ("---",) * len(table.columns)
    return "\n".join(f"| {_line(cells)} |" for cells in (table.columns, delimiter, *table.rows))


def rows_text(rows: Sequence[Sequence[Value]]) -> str:
    """Rows without column names, one on each line; '(no rows)' for an empty result."""
    return "\n".join(_line(row) for row in rows) if rows else "(no rows)"


def _csv_cell(value: Value) -> str:
    """A cell; strings with special characters, the string NULL and the empty string are quoted."""
    if not isinstance(value, str):
        return cell_text(value)
    is_plain = value not in ("", "NULL") and not any(character in value for character in ',"\r\n')
    return value if is_plain else '"' + value.replace('"', '""') + '"'


def cell_text(value: Value) -> str:
    """One value: NULL, a number as Python writes it, bytes as X'hex'; newline, '|' and backslash are escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return str(value).translate(_ESCAPES)


def _line(cells: Sequence[Value]) -> str:
    return " | ".join(cell_text(cell) for cell in cells)
