"""Files that hold rows, by their names: JSON lines, one JSON document, or Parquet; the first two may be compressed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from acc_megatron.data_tools.jsonl import BadRow, Row, digest, read_json, read_jsonl
from acc_megatron.data_tools.parquet_rows import read_parquet
from acc_megatron.data_tools.streams import COMPRESSIONS, STANDARD_INPUT, located
from acc_megatron.errors import DataError

RowFileKind = Literal["lines", "document", "parquet"]

_KINDS: dict[str, RowFileKind] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "document",
    ".traj": "document",
    ".parquet": "parquet",
}
KNOWN_NAMES = ".jsonl, .ndjson, .json, .traj (each also with .gz or .zst) or .parquet"


def expanded(paths: Iterable[Path]) -> Iterator[Path]:
    """Paths with every pattern (`runs/*.jsonl`, `**`) replaced by what it matches, by name.

    A path that exists is no pattern, whatever characters it holds. Raises DataError for what matches nothing.
    """
    for path in paths:
        if path == STANDARD_INPUT or path.exists():
            yield path
            continue
        anchor = Path(path.anchor)
        found = sorted(anchor.glob(str(path.relative_to(anchor)))) if any(mark in str(path) for mark in "*?[") else []
        if not found:
            raise DataError(f"no input at {path}")
        yield from found


def row_file_kind(path: Path) -> RowFileKind | None:
    """How rows stand in a file, by its name; None for a file of another kind."""
    path = located(path)
    return _KINDS.get(Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix)


def is_run_file(path: Path) -> bool:
    """Whether the name promises a run and no resource: `.traj`, `.traj.gz`, mini-swe-agent's `.traj.json`."""
    return ".traj" in path.suffixes[-3:]


def rows_of(path: Path) -> Iterator[Row | BadRow]:
    """The rows of one file. A document that is a list of one run's events or messages is one row.

    A Parquet file that turns out damaged ends with a bad row. Raises DataError when a file cannot be opened.
    """
    kind = row_file_kind(path)
    if kind == "lines":
        yield from read_jsonl(path)
    elif kind == "document":
        yield from _whole_run(read_json(path), path)
    else:
        line = 0
        try:
            for row in read_parquet(path):
                line = row.line
                yield row
        except DataError as error:
            yield BadRow(file=str(path), line=line + 1, byte_offset=0, reason="damaged_parquet", detail=str(error))


def row_at(path: Path, line: int, byte_offset: int) -> Row | BadRow | None:
    """One row of a file read again; None when it is no longer there."""
    kind = row_file_kind(path)
    if kind == "lines":
        return next(read_jsonl(path, byte_offset=byte_offset, first_line=line, num_rows=1), None)
    if kind == "parquet":
        return next(read_parquet(path, first_row=line - 1, num_rows=1), None)
    return next((row for row in rows_of(path) if row.line == line), None)


def _whole_run(rows: list[Row | BadRow], path: Path) -> list[Row | BadRow]:
    """Events (`action` or `observation` beside `source`, or `kind`) and messages (`role`) make sense together only."""
    good = [row.value for row in rows if isinstance(row, Row)]
    if len(rows) < 2 or len(good) < len(rows):
        return rows
    is_old = all(
        ("action" in value or "observation" in value) and ("source" in value or "id" in value) for value in good
    )
    is_sdk = all("kind" in value for value in good) and any(value["kind"] == "ActionEvent" for value in good)
    if is_old or is_sdk:
        return [Row(value={"history": good}, file=str(path), line=1, byte_offset=0, sha256=digest(good))]
    if any("role" in value for value in good) and all("role" in value or "type" in value for value in good):
        return [Row(value={"messages": good}, file=str(path), line=1, byte_offset=0, sha256=digest(good))]
    return rows
