"""Checking an answer that states result rows against the result of the gold query."""

import re

from acc_megatron.data_tools.rows.fields import fenced_blocks, optional_object
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.sql.runs import same_result
from acc_megatron.data_tools.sources.sql.sqlite_readonly import QueryError, Value, open_readonly
from acc_megatron.data_tools.sources.sql.table_names import has_order_by
from acc_megatron.data_tools.sources.sql.table_text import rows_text
from acc_megatron.errors import Dropped

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,300})")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?")


def check_rows(triple: Triple, answer: str, resources: Resources) -> None:
    """Return if the answer's rows are the gold result; raises Dropped: wrong_answer, or database_... with the reason.

    The gold query runs read-only here. Without the query or the database, the recorded rows are the result. Rows are
    compared as a multiset, or in order if the query orders them; 1 equals 1.0.
    """
    notes = optional_object(triple.settings, "notes")
    gold_sql, path = notes.get("gold_sql"), resources.database(str(notes.get("database")))
    truth = triple.ground_truth
    if isinstance(gold_sql, str) and path is not None:
        try:
            with open_readonly(path) as database:
                truth = rows_text(database.query(gold_sql).rows)
        except QueryError as error:
            raise Dropped(f"database_{error.reason}", error.detail) from None
    is_ordered = isinstance(gold_sql, str) and has_order_by(gold_sql)
    found, expected = answer_rows(answer), answer_rows(truth)
    if not same_result(found, expected, ordered=is_ordered):
        raise Dropped("wrong_answer", f"the answer's {len(found)} rows differ from the gold query's {len(expected)}")


def answer_rows(answer: str) -> list[list[Value]]:
    """The rows of an answer in the form that the question asks for; a code fence and outer bars are allowed."""
    block = next(iter(fenced_blocks(answer)), answer)
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    if lines == ["(no rows)"]:
        return []
    return [[_value(cell) for cell in _cells(line)] for line in lines]


def _cells(line: str) -> list[str]:
    if line.startswith("| ") and line.endswith(" |"):
        line = line[2:-2]
    return re.split(r"(?<!\\)\|", line)


def _value(cell: str) -> Value:
    """NULL, a number, or text; text that looks like a number is compared as a number on both sides."""
    cell = cell.strip()
    if cell == "NULL":
        return None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else cell
