"""Rows of benchmarks from published files: only the needed columns are read, and rows are sampled by seed."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from acc_megatron.common.json_rows import BadRow
from acc_megatron.data_tools.rows.json_list import list_rows
from acc_megatron.data_tools.rows.parquet_rows import open_parquet
from acc_megatron.data_tools.rows.row_files import KNOWN_NAMES, row_file_kind, rows_of
from acc_megatron.errors import DataError

_BATCH_ROWS = 8  # a published row has up to 5 MB


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and its place, such as `folder/rows.jsonl:3`."""

    where: str
    row: dict[str, Any]


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and globs match, sorted, each once. Raises DataError for a pattern without a match."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        anchor = Path(Path(pattern).anchor)
        exact = Path(pattern).exists()
        paths = [Path(pattern)] if exact else sorted(anchor.glob(str(Path(pattern).relative_to(anchor))))
        if not paths:
            raise DataError(f"no file of rows at {pattern}")
        found |= dict.fromkeys(paths)
    return list(found)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[PlacedRow]:
    """The rows of a JSON, JSONL or Parquet file, with those of `columns` that it has; DataError names the place."""
    kind = row_file_kind(path)
    if not path.is_file() or kind is None:
        raise DataError(f"no file of rows at {path}; files of rows are {KNOWN_NAMES}")
    if kind == "parquet":
        # only these columns: others may contain dates, which JSON has not; the caller reports missing columns
        file = open_parquet(path)
        names = [name for name in columns if name in file.schema_arrow.names]
        number = 0
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield PlacedRow(
                        f"{path}:{number}", {name: value for name, value in row.items() if value is not None}
                    )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged after row {number}: {error}") from None
        return
    for row in list_rows(path) if kind == "document" else rows_of(path):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{row.line}: {row.reason}: {row.detail}")
        yield PlacedRow(f"{path}:{row.line}", {name: row.value[name] for name in columns if name in row.value})


def sample_rows(
    paths: Sequence[Path], columns: Sequence[str], text: str, *, max_chars: int | None, limit: int | None, seed: int
) -> tuple[list[PlacedRow], Counter[str]]:
    """A seeded sample of the rows whose column `text` has at most `max_chars` characters, in the order of the files.

    The second value counts the rows left out, by reason. Only the sample is kept in memory (reservoir sampling,
    Vitter's algorithm R).
    """
    rng = random.Random(seed)
    kept: list[tuple[int, PlacedRow]] = []
    left_out: Counter[str] = Counter()
    num_good = 0
    for placed in (placed for path in paths for placed in read_rows(path, columns)):
        if max_chars is not None and len(str(placed.row.get(text, ""))) > max_chars:
            left_out["over_max_chars"] += 1
            continue
        num_good += 1
        if limit is None or len(kept) < limit:
            kept.append((num_good, placed))
            continue
        left_out["not_sampled"] += 1
        slot = rng.randrange(num_good)
        if slot < limit:
            kept[slot] = num_good, placed
    return [placed for _, placed in sorted(kept, key=lambda one: one[0])], left_out
