"""Whole documents into rows: best fit, longest first; deterministic, and over-long documents are refused."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from acc_megatron.errors import DataError


def pack(lengths_tokens: Sequence[int], capacity_tokens: int) -> list[list[int]]:
    """Rows of document numbers; each row holds at most `capacity_tokens`, ties go to the lower number.

    Raises DataError for a document that fits no row: nothing is cut, because supervision is at the end.
    """
    free: list[tuple[int, int]] = []  # (room left, row), ascending
    rows: list[list[int]] = []
    for document in sorted(range(len(lengths_tokens)), key=lambda i: (-lengths_tokens[i], i)):
        length = lengths_tokens[document]
        if length > capacity_tokens:
            raise DataError(
                f"document {document} needs {length} tokens (padding included), a row holds {capacity_tokens}: "
                "raise data.seq_length_tokens, or convert with a smaller --max-tokens"
            )
        best = bisect_left(free, (length, -1))
        if best < len(free):
            room, row = free.pop(best)
        else:
            room, row = capacity_tokens, len(rows)
            rows.append([])
        rows[row].append(document)
        if room > length:
            insort(free, (room - length, row))
    return rows


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
