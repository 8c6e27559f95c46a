"""Packing whole documents into rows by best fit, longest document first.

Documents of equal length are placed together: a row with room for several of them takes them in one step. Best fit
would place them one by one with the same result, because the row just used is the fullest in which the next one fits.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

import numpy as np

from acc_megatron.errors import DataError


def pack(lengths_tokens: Sequence[int] | np.ndarray, capacity_tokens: int) -> list[list[int]]:
    """Return rows of document numbers with at most `capacity_tokens` tokens each; deterministic.

    Of documents of equal length the lower number is placed first. Takes O(documents + rows x distinct lengths) at
    worst. Raises DataError for a document longer than a row: documents are never cut, because supervised tokens are
    at their end.
    """
    lengths = np.asarray(lengths_tokens, np.int64)
    _refuse_over_long(lengths, capacity_tokens)
    order = np.argsort(-lengths, kind="stable")
    starts = np.flatnonzero(np.diff(lengths[order], prepend=-1))
    rows: list[list[int]] = []
    rooms: list[int] = []  # free tokens of unfilled rows, ascending and distinct
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
            f"document {over[0]} needs {lengths[over[0]]} tokens including padding, but a row has {capacity_tokens}; "
            f"{len(over)} documents are too long: increase data.seq_length_tokens, or run acc-megatron convert with a "
            "smaller --max-tokens"
        )


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def length_bucket(longest_tokens: int, multiple_tokens: int, row_tokens: int) -> int:
    """Return the smallest `multiple_tokens` x 2^k that is at least `longest_tokens`, at most the row.

    Kernels of packed rows are launched, and cuDNN's graphs are built, for the longest document that a row may contain.
    """
    bucket = multiple_tokens
    while bucket < longest_tokens:
        bucket *= 2
    return min(bucket, row_tokens)
