"""Slices of a file with rows that a worker can read without the rest."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from acc_megatron.common.atomic_files import size_and_time
from acc_megatron.common.json_rows import BadRow, Row, read_jsonl, read_lines
from acc_megatron.common.streams import COMPRESSIONS, located, open_stream
from acc_megatron.data_tools.rows.json_list import list_rows
from acc_megatron.data_tools.rows.parquet_rows import open_parquet, read_parquet
from acc_megatron.data_tools.rows.row_files import damaged_parquet, row_file_kind
from acc_megatron.data_tools.rows.session_logs import session_log_kind
from acc_megatron.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRange:
    """A slice of one input file; without `num_rows` it is the whole file."""

    path: Path
    first_row: int = 0
    num_rows: int | None = None
    byte_offset: int = 0
    first_line: int = 1


def row_ranges(path: Path, rows_per_range: int) -> Iterator[RowRange]:
    """Divide a file into ranges of at most `rows_per_range` rows, reading it once in constant memory.

    A process that reads the ranges of a compressed file in order decompresses it once. A JSON document is one range.
    """
    if row_file_kind(path) == "document":
        yield RowRange(path=path, num_rows=sum(1 for _ in list_rows(path)))
        return
    if row_file_kind(path) == "parquet":
        num_rows = open_parquet(path).metadata.num_rows
        for first in range(0, num_rows, rows_per_range):
            yield RowRange(path=path, first_row=first, num_rows=min(rows_per_range, num_rows - first))
        return
    start, start_line, rows, first_row = 0, 1, 0, 0
    for line in read_lines(path):
        rows += line.data is None or not line.data.isspace()
        if rows == rows_per_range:
            yield RowRange(path=path, first_row=first_row, num_rows=rows, byte_offset=start, first_line=start_line)
            first_row, rows, start, start_line = first_row + rows, 0, line.byte_offset + line.num_bytes, line.number + 1
    if rows:
        yield RowRange(path=path, first_row=first_row, num_rows=rows, byte_offset=start, first_line=start_line)


def is_divisible(path: Path) -> bool:
    """Whether each row of a file of runs can be read by itself: not in a document, a session log or a damaged file."""
    kind = row_file_kind(path)
    if kind == "lines":
        first = next(read_jsonl(path, num_rows=1), None)
        return not isinstance(first, Row) or session_log_kind(first.value) is None
    if kind == "parquet":
        with suppress(DataError):
            open_parquet(path)
            return True
    return False


def read_run_rows(rows: RowRange) -> Iterator[Row | BadRow]:
    """Like `read_rows`, but a damaged Parquet file ends with a bad row."""
    line = rows.first_row
    try:
        for row in read_rows(rows):
            line = row.line
            yield row
    except DataError as error:
        if row_file_kind(rows.path) != "parquet":
            raise
        yield damaged_parquet(rows.path, line + 1, error)


def read_rows(rows: RowRange) -> Iterator[Row | BadRow]:
    """The rows of one range, including those that cannot be parsed; JSON rows have no SHA-256."""
    if row_file_kind(rows.path) == "parquet":
        yield from read_parquet(rows.path, first_row=rows.first_row, num_rows=rows.num_rows)
        return
    if row_file_kind(rows.path) == "document":
        yield from list_rows(rows.path)
        return
    yield from read_jsonl(
        rows.path,
        byte_offset=rows.byte_offset,
        first_line=rows.first_line,
        num_rows=rows.num_rows,
        hashed=False,
        stream=_Opened.stream_of(rows.path),
    )


class _Opened:
    """The compressed file that this process read last: the next range continues where the last one ended."""

    key: tuple[object, ...] = ()
    stream: IO[bytes] | None = None

    @classmethod
    def stream_of(cls, path: Path) -> IO[bytes] | None:
        """The open stream of a compressed file; None for any other file, in which seeking is free."""
        if located(path).suffix not in COMPRESSIONS:
            return None
        key = (os.getpid(), path, *size_and_time(located(path)))  # a fork shares the position of the file
        if cls.key != key:
            if cls.stream is not None:
                cls.stream.close()
            cls.key, cls.stream = key, open_stream(path)
        return cls.stream
