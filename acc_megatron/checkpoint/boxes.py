"""Cutting a range of a flattened tensor into boxes, which a checkpoint can store with shape and place."""

import math
from collections.abc import Iterator

Index = tuple[int, ...]


def boxes(shape: Index, start: int, stop: int) -> Iterator[tuple[Index, Index]]:
    """Yield (offset, shape) of boxes that contain elements `start` to `stop` of a row-major tensor, in this order.

    The elements of each box are consecutive in memory. A range of a matrix has at most three: the rest of a row,
    complete rows, and the beginning of a row; every further dim adds two.
    """
    if start >= stop:
        return
    if len(shape) == 1:
        yield (start,), (stop - start,)
        return
    row_elements = math.prod(shape[1:])
    first, last = -(-start // row_elements), stop // row_elements  # complete rows
    if first > last:
        yield from _in_row(shape, last, start, stop)
        return
    yield from _in_row(shape, first - 1, start, first * row_elements)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from _in_row(shape, last, last * row_elements, stop)


def _in_row(shape: Index, row: int, start: int, stop: int) -> Iterator[tuple[Index, Index]]:
    before = row * math.prod(shape[1:])
    for offset, size in boxes(shape[1:], start - before, stop - before):
        yield (row, *offset), (1, *size)
