"""The rows that a SQL agent saw, read from the text of a table: JSON objects, Markdown, psql, boxes, CSV, pandas.

Text does not say whether its first line is a header, so a text has several readings. A text that may be cut, or that
may be a sentence, has none.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.rows.fields import embedded_list, literal_object
from acc_megatron.data_tools.sources.sql.observed_rows import observed_rows, same_as_observed

_ROW_KEYS = ("rows", "results", "result", "data", "records", "values", "output")
_NUMBER = re.compile(r"[-+]?\d{1,40}(?:\.\d{1,40})?")
_RULE = re.compile(r"[\s|+:=-]*-[\s|+:=-]*")
_CUT = re.compile(r"\.\.\.|…|truncated|more rows|omitted|first \d+ rows", re.IGNORECASE)
_FOOTER = re.compile(r"\(?\d+ rows?(?: in set)?(?: \(\S{1,20} sec\))?\)?\.?|rows?: \d+", re.IGNORECASE)
_FENCE = re.compile(r"```\w*")
_EMPTY = {"null", "none", "nan", "<na>", ""}
_NO_ROWS = re.compile(
    r"empty (?:set|result)\b[^\n]{0,40}"
    r"|\(?(?:0|no) (?:rows?|results?|records?|data)(?: (?:were |was )?(?:returned|found|selected))?\)?[.!]?"
    r"|(?:query |statement )?executed successfully[.,;:]? \(?no (?:rows?|results?)(?: returned| found)?\)?[.!]?",
    re.IGNORECASE,
)
# what a tool says before the rows, also in a tag
_INTRODUCTION = re.compile(
    r"(?:<\w{1,20}>\s{0,4})?(?:(?:the |sql |your )?(?:query|statement|execution|command)\b[\w ]{0,40}"
    r"(?:success\w*|complete\w*|results?|output|returned)\b[\w ]{0,30}[.:!]{0,2}\s{1,4})?"
    r"(?:(?:results?|output|rows|data)(?: of the query)?:\s{1,4})?",
    re.IGNORECASE,
)
_END_TAG = re.compile(r"\s{0,4}</\w{1,20}>$")
_FIELD = re.compile(r"\W{0,4}(\w{1,60})\W{0,4}: (.*)")
_BOX_MARKS = "─━═┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬"
_BOX = str.maketrans("│┃║" + _BOX_MARKS, "|||" + "-" * len(_BOX_MARKS))
_TYPE = re.compile(
    r"u?int\d{1,3}|varchar|double|float\d{0,2}|boolean|date|timestamp|decimal\(.{1,9}\)"
)  # DuckDB's line
_INDEXED = re.compile(r"(\d{1,6})\s+(\S.*)")
_MAX_CHARACTERS = 1 << 16


def states_other_rows(
    text: str, rows: Sequence[Sequence[Any]], *, ordered: bool, names: Collection[str] = ()
) -> bool | None:
    """Whether a text states other rows than these; None if it states no rows that can be read.

    A text with one column is a table if its first line is one of the `names`, in lower case.
    """
    num_columns = len(rows[0]) if rows else 0
    found = list(_readings(text, num_columns, names))
    if not found:
        return None
    wanted = [[_value(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return not any(same_as_observed(reading, wanted, ordered=ordered) for reading in found)


def _readings(text: str, num_columns: int, names: Collection[str]) -> Iterator[list[list[Any]]]:
    text = (text.translate(_BOX) if text.lstrip().startswith(("┌", "╔", "│")) else text).strip()
    if not text or len(text) > _MAX_CHARACTERS or _CUT.search(text):
        return
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if _NO_ROWS.fullmatch(text):
        yield []
        return
    text = _END_TAG.sub("", text[_introduction_end(text) :])
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if text.startswith("(") and (rows := observed_rows(f"[{','.join(lines)}]")) is not None:
        yield rows  # rows as Python writes them
        return
    if text.startswith(("[", "{")):
        rows = observed_rows(text)
        rows = _of_json(text, num_columns) if rows is None else rows
        if (rows := _of_json(f"[{','.join(lines)}]", num_columns) if rows is None else rows) is not None:
            yield rows
        return
    if (rows := _of_pandas(lines, num_columns) or _of_fields(lines, names)) is not None:
        yield rows
        return
    lines = [line for line in lines if not _FENCE.fullmatch(line)]
    has_rule = any(_RULE.fullmatch(line) for line in lines)
    lines = [line for line in lines if not _RULE.fullmatch(line) and not _FOOTER.fullmatch(line)]
    separator = next((mark for mark in ("|", "\t", ",") if lines and all(mark in line for line in lines)), None)
    cells = [_cells(line, separator) for line in lines]
    cells = [row for row in cells if not all(_TYPE.fullmatch(cell) for cell in row)]
    widths = {len(row) for row in cells}
    if len(widths) != 1:
        return
    if has_rule:
        yield [[_value(cell) for cell in row] for row in cells[1:]]
        return
    is_table = separator is not None and len(cells) > 1 and num_columns in widths
    has_name = separator is None and num_columns <= 1 and lines[0].strip('"').lower() in names
    is_table = is_table or (has_name and len(cells) > 1)
    for found in (cells, cells[1:]):
        if found and (is_table or (separator is None and all(_NUMBER.fullmatch(row[0]) for row in found))):
            yield [[_value(cell) for cell in row] for row in found]


def _of_pandas(lines: list[str], num_columns: int) -> list[list[Any]] | None:
    """The rows of a printed data frame, which numbers them from 0; None for any other text."""
    numbered = [_INDEXED.fullmatch(line) for line in lines[1:]]
    rows = [re.split(r"\s{2,}", match[2]) if num_columns > 1 else [match[2]] for match in numbered if match]
    is_frame = rows and all(match and int(match[1]) == number for number, match in enumerate(numbered))
    if not is_frame or any(len(row) != max(num_columns, 1) for row in rows):
        return None
    return [[_value(cell) for cell in row] for row in rows]


def _introduction_end(text: str) -> int:
    found = _INTRODUCTION.match(text)
    return found.end() if found else 0


def _of_fields(lines: list[str], names: Collection[str]) -> list[list[Any]] | None:
    """The rows of lines `name: value` with names of the query; a name that the row has begins the next one."""
    fields = [_FIELD.fullmatch(line) for line in lines]
    if not lines or not all(found and found[1].lower() in names for found in fields):
        return None
    rows: list[dict[str, Any]] = []
    for found in filter(None, fields):
        if not rows or found[1] in rows[-1]:
            rows.append({})
        rows[-1][found[1]] = _value(found[2])
    return [list(row.values()) for row in rows]


def _cells(line: str, separator: str | None) -> list[str]:
    if separator == ",":
        return next(csv.reader([line]))
    if separator is None:
        return [line]
    return [cell.strip() for cell in (line.strip("|") if separator == "|" else line).split(separator)]


def _of_json(text: str, num_columns: int) -> list[list[Any]] | None:
    """The rows of a list of objects or lists, or of the values of one column, also under a key such as `rows`."""
    try:
        value: Any = parse_json(text.encode())
    except BadJson:
        value = embedded_list(text) or literal_object(text)
    if isinstance(value, dict):
        value = next((value[key] for key in _ROW_KEYS if isinstance(value.get(key), list)), None)
    if isinstance(value, list) and num_columns <= 1 and not any(isinstance(row, dict | list | tuple) for row in value):
        value = [[cell] for cell in value]
    if not isinstance(value, list) or not all(isinstance(row, dict | list) for row in value):
        return None
    rows = [list(row.values()) if isinstance(row, dict) else row for row in value]
    return [[json.dumps(cell) if isinstance(cell, dict | list) else _value(cell) for cell in row] for row in rows]


def _value(cell: Any) -> Any:
    """A number of a text as a Decimal, which states only its own digits; a text for an empty cell is None."""
    if not isinstance(cell, str):
        return cell
    plain = cell.strip()
    if _NUMBER.fullmatch(plain):
        return Decimal(plain) if "." in plain else int(plain)
    return None if plain.lower() in _EMPTY else plain
