"""The rows that a SQL agent saw, read from the text of an observation.

The known forms are the repr of a list of tuples (InterCode, with MySQL's Decimal, dates and bytes) and a JSON list of
lists. Nothing is evaluated: only literals and constructors of values are accepted.
"""

import ast
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from acc_megatron.data_tools.sources.sql.runs import same_result

_MAX_CHARACTERS = 1 << 20
_JSON_NAMES = {"null": None, "true": True, "false": False}
_DATE_PARTS, _TIME_PARTS = 3, 7
_FLOAT_DIGITS = 6
_MAX_EXPONENT = 65  # the digits of MySQL's DECIMAL


def observed_rows(text: str) -> list[list[Any]] | None:
    """The rows of an observation, [] for an empty result; None for a text in another form."""
    text = text.strip()
    if not text.startswith("[") or len(text) > _MAX_CHARACTERS:
        return None
    try:
        return _rows(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def same_as_observed(observed: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]], *, ordered: bool) -> bool:
    """Whether an observation states the same rows.

    A Decimal states only its own number of decimals. Floats state as many digits as the longest of their column, at
    least 6, because MySQL writes no more of a FLOAT.
    """
    places: dict[int, int] = {}
    digits: dict[int, int] = {}
    for row in observed:
        for column, cell in enumerate(row):
            if isinstance(cell, Decimal):
                number = max(0, -int(cell.as_tuple().exponent))
                places[column] = min(places.get(column, number), number)
            elif isinstance(cell, float):
                digits[column] = max(digits.get(column, _FLOAT_DIGITS), _num_digits(cell))
    left, right = (
        [[_rounded(cell, places.get(i), digits.get(i)) for i, cell in enumerate(row)] for row in found]
        for found in (observed, rows)
    )
    return same_result(left, right, ordered=ordered)


def _rows(listed: ast.expr) -> list[list[Any]]:
    if not isinstance(listed, ast.List):
        raise ValueError("not a list of rows")
    rows = []
    for row in listed.elts:
        if not isinstance(row, ast.Tuple | ast.List):
            raise ValueError("not a row")
        rows.append([_cell(cell) for cell in row.elts])
    return rows


def _cell(node: ast.expr) -> Any:
    """A literal, or the value that `Decimal(...)`, `datetime.date(...)` and their like construct."""
    if isinstance(node, ast.Name) and node.id in _JSON_NAMES:
        return _JSON_NAMES[node.id]
    if not isinstance(node, ast.Call):
        value = ast.literal_eval(node)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    given = [ast.literal_eval(argument) for argument in node.args]
    if name == "Decimal" and len(given) == 1:
        number = Decimal(str(given[0]))
        if number.is_finite() and abs(number.adjusted()) <= _MAX_EXPONENT:
            return number
    if name in ("date", "datetime") and _DATE_PARTS <= len(given) <= _TIME_PARTS:
        return _date_text([int(part) for part in given], has_time=name == "datetime")
    raise ValueError(f"unknown value {name!r:.40}")


def _date_text(parts: list[int], *, has_time: bool) -> str:
    year, month, day, *time = parts
    date = f"{year:04}-{month:02}-{day:02}"
    hour, minute, second, *_ = (*time, 0, 0, 0)
    return f"{date} {hour:02}:{minute:02}:{second:02}" if has_time else date


def _num_digits(number: float) -> int:
    """The significant digits that Python writes."""
    return len(repr(number).partition("e")[0].replace(".", "").strip("-0"))


def _rounded(cell: Any, places: int | None, digits: int | None) -> Any:
    if places is None and digits is not None and isinstance(cell, float):
        return float(f"{cell:.{digits}g}")
    if isinstance(cell, bool) or places is None or not isinstance(cell, int | float | Decimal):
        return float(cell) if isinstance(cell, Decimal) else cell
    try:
        return float(Decimal(str(cell)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    except InvalidOperation:  # infinite, or more digits than a Decimal of the usual precision has
        return cell
