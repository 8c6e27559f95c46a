"""Rows of Parquet files, a few at a time, within the limits of JSON rows.

A null field counts as absent, because Parquet writes every field of any row; dates and times become ISO 8601 text. A
row group is refused before it is read if its stated size is more than RATIO times the size of the file; a row is
refused if its JSON would be too long or too deep.
"""

import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.common.json_rows import MAX_DEPTH, MAX_ROW_BYTES, BadRow, Row, as_row, depth_of
from acc_megatron.common.streams import RATIO, SLACK_BYTES, located
from acc_megatron.errors import DataError

_ROWS_PER_BATCH = 16


def read_parquet(path: Path, *, first_row: int = 0, num_rows: int | None = None) -> Iterator[Row | BadRow]:
    """At most `num_rows` rows from row `first_row` (0-based); `line` is 1-based and `byte_offset` is 0.

    Raises DataError for a file that is damaged or not Parquet.
    """
    file = open_parquet(path)
    limit = SLACK_BYTES + RATIO * located(path).stat().st_size
    end = file.metadata.num_rows if num_rows is None else first_row + num_rows
    position = 0
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        if first_row < position + metadata.num_rows and position < end:
            if metadata.total_byte_size > limit:
                stated = metadata.total_byte_size
                raise DataError(
                    f"{path}: row group {group} has {stated} bytes; the limit is {limit}, about {RATIO} times the file"
                )
            wanted = range(max(first_row - position, 0), min(end - position, metadata.num_rows))
            for number, value in zip(wanted, _values(file, path, group, wanted), strict=False):
                yield _checked(value, path, position + number + 1)
        position += metadata.num_rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; the checksums of its pages are verified as they are read. Raises DataError."""
    try:
        return pq.ParquetFile(located(path), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def _values(file: pq.ParquetFile, path: Path, group: int, wanted: range) -> Iterator[dict[str, Any]]:
    """The wanted rows of a group; the others are not converted to Python objects."""
    position = 0
    try:
        for batch in file.iter_batches(_ROWS_PER_BATCH, row_groups=[group], use_threads=False):
            # one at a time, because Python objects are larger than Arrow's
            for i in range(max(wanted.start - position, 0), min(wanted.stop - position, batch.num_rows)):
                yield from batch.slice(i, 1).to_pylist(maps_as_pydicts="strict")
            position += batch.num_rows
            if position >= wanted.stop:
                return
        if position < wanted.stop:
            raise ValueError(f"the group contains {position} rows and states {wanted.stop}")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged in row group {group}: {error}") from None


def _checked(value: dict[str, Any], path: Path, line: int) -> Row | BadRow:
    value = _as_json(value)
    try:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # bytes, NaN, lone surrogates
        return BadRow(file=str(path), line=line, byte_offset=0, reason="not_json", detail=str(error)[:200])
    if len(data) > MAX_ROW_BYTES:
        detail = f"the row has {len(data)} bytes as JSON; the limit is {MAX_ROW_BYTES}"
        return BadRow(file=str(path), line=line, byte_offset=0, reason="line_too_long", detail=detail)
    if depth_of(value) > MAX_DEPTH:
        detail = f"nested deeper than {MAX_DEPTH}"
        return BadRow(file=str(path), line=line, byte_offset=0, reason="too_deep", detail=detail)
    return as_row(value, path, line, 0, hashlib.sha256(data).hexdigest())


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return [_as_json(item) for item in value] if isinstance(value, list) else value
