"""Rows of benchmarks in files, as published: read a column at a time of need, sampled by seed, and written alike."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from acc_megatron.data_tools.atomic import atomic_file
from acc_megatron.data_tools.jsonl import BadRow
from acc_megatron.data_tools.parquet_rows import open_parquet
from acc_megatron.data_tools.row_files import KNOWN_NAMES, row_file_kind, rows_of
from acc_megatron.errors import DataError
from acc_megatron.evaluate.json_list import list_rows

Placed = tuple[str, dict[str, Any]]  # where it stands, such as `folder/rows.jsonl:3`, and the row
_BATCH_ROWS = 8  # a published row has up to 5 MB


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and globs name, sorted, once each. Raises DataError for one that names nothing."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        anchor = Path(Path(pattern).anchor)
        exact = Path(pattern).exists()
        paths = [Path(pattern)] if exact else sorted(anchor.glob(str(Path(pattern).relative_to(anchor))))
        if not paths:
            raise DataError(f"no file of rows at {pattern}")
        found |= dict.fromkeys(paths)
    return list(found)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    """The rows of a JSON, JSONL or Parquet file with those of `columns` that it has; DataError by place."""
    kind = row_file_kind(path)
    if not path.is_file() or kind is None:
        raise DataError(f"no file of rows at {path}: rows are {KNOWN_NAMES}")
    if kind == "parquet":
        # other columns may hold dates, which are no JSON; a column that is missing is the reader's to name
        file = open_parquet(path)
        names = [name for name in columns if name in file.schema_arrow.names]
        number = 0
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", {name: value for name, value in row.items() if value is not None}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged after row {number}: {error}") from None
        return
    for row in list_rows(path) if kind == "document" else rows_of(path):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{row.line}: {row.reason}: {row.detail}")
        yield f"{path}:{row.line}", {name: row.value[name] for name in columns if name in row.value}


def sample_rows(
    paths: Sequence[Path], columns: Sequence[str], text: str, *, max_chars: int | None, limit: int | None, seed: int
) -> tuple[list[Placed], Counter[str]]:
    """A seeded sample of the rows whose column `text` has at most `max_chars` characters, in the order of the files.

    Also what was left out, by reason. Memory holds the sample alone (reservoir sampling, Vitter's algorithm R).
    """
    rng = random.Random(seed)
    kept: list[tuple[int, Placed]] = []
    left_out: Counter[str] = Counter()
    num_good = 0
    for place, row in (placed for path in paths for placed in read_rows(path, columns)):
        if max_chars is not None and len(str(row.get(text, ""))) > max_chars:
            left_out["over_max_chars"] += 1
            continue
        num_good += 1
        if limit is None or len(kept) < limit:
            kept.append((num_good, (place, row)))
            continue
        left_out["not_sampled"] += 1
        slot = rng.randrange(num_good)
        if slot < limit:
            kept[slot] = num_good, (place, row)
    return [placed for _, placed in sorted(kept, key=lambda one: one[0])], left_out


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish rows as Parquet or JSON lines, by the name of the file."""
    with atomic_file(path) as file:
        if row_file_kind(path) == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
        else:
            for row in rows:
                file.write(json.dumps(dict(row), ensure_ascii=False).encode() + b"\n")
