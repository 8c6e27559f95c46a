"""Whole documents into rows: best fit, longest first; deterministic, and over-long documents are refused.

Documents of one length are placed together: a row that still has room for several takes them at once, exactly as
best fit would one after the other, because the row just filled is the fullest that the next one fits.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

import numpy as np

from acc_megatron.errors import DataError


def pack(lengths_tokens: Sequence[int] | np.ndarray, capacity_tokens: int) -> list[list[int]]:
    """Rows of document numbers; each row holds at most `capacity_tokens`, ties go to the lower number.

    Takes O(documents + rows x distinct lengths at worst, with a small constant). Raises DataError for a document
    that fits no row: nothing is cut, because supervision is at the end.
    """
    lengths = np.asarray(lengths_tokens, np.int64)
    _refuse_over_long(lengths, capacity_tokens)
    order = np.argsort(-lengths, kind="stable")
    starts = np.flatnonzero(np.diff(lengths[order], prepend=-1))
    rows: list[list[int]] = []
    rooms: list[int] = []  # ascending, each with rows that have just that room
    rows_with: dict[int, deque[int]] = {}
    for documents in np.split(order, starts[1:]):
        length, waiting, placed = int(lengths[documents[0]]), documents.tolist(), 0
        while placed < len(waiting):
            best = bisect_left(rooms, length)
            if best == len(rooms):
                room, row = capacity_tokens, len(rows)
                rows.append([])
            else:
                room = rooms[best]
                row = rows_with[room].popleft()
                if not rows_with[room]:
                    del rooms[best], rows_with[room]
            count = min(room // length, len(waiting) - placed)
            rows[row] += waiting[placed : placed + count]
            placed += count
            room -= count * length
            if room:
                if room not in rows_with:
                    rows_with[room] = deque()
                    insort(rooms, room)
                rows_with[room].append(row)
    return rows


def _refuse_over_long(lengths: np.ndarray, capacity_tokens: int) -> None:
    over = np.flatnonzero(lengths > capacity_tokens)
    if len(over):
        raise DataError(
            f"document {over[0]} needs {lengths[over[0]]} tokens (padding included), a row holds {capacity_tokens}: "
            f"raise data.seq_length_tokens, or convert with a smaller --max-tokens ({len(over)} documents are too long)"
        )


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
