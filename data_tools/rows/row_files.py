"""Files with rows, known by their names: JSON lines, one JSON document, or Parquet; JSON may be compressed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from acc_megatron.common.json_rows import BadRow, Row, digest, read_json, read_jsonl
from acc_megatron.common.streams import COMPRESSIONS, STANDARD_INPUT, located
from acc_megatron.data_tools.rows.event_folders import event_files, run_of_events
from acc_megatron.data_tools.rows.parquet_rows import read_parquet
from acc_megatron.data_tools.rows.remote_files import fetched, remote_url
from acc_megatron.data_tools.rows.session_logs import whole_session
from acc_megatron.errors import DataError

RowFileKind = Literal["lines", "document", "parquet"]

_KINDS: dict[str, RowFileKind] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "document",
    ".traj": "document",
    ".parquet": "parquet",
}
DAMAGED_PARQUET = "damaged_parquet"  # no later row of the file is read
KNOWN_NAMES = ".jsonl, .ndjson, .json, .traj (each also with .gz or .zst) or .parquet"


def expanded(paths: Iterable[Path]) -> Iterator[Path]:
    """Paths, with every pattern (`runs/*.jsonl`, `**`) replaced by its matches in the order of their names.

    An existing path is never a pattern, and a remote URL becomes its local copy (remote_files.py). Raises DataError for
    a pattern without a match and a path that does not exist.
    """
    for path in paths:
        if (url := remote_url(path)) is not None:
            yield fetched(url)
            continue
        if path == STANDARD_INPUT or path.exists():
            yield path
            continue
        anchor = Path(path.anchor)
        found = sorted(anchor.glob(str(path.relative_to(anchor)))) if any(mark in str(path) for mark in "*?[") else []
        if not found:
            raise DataError(f"no input at {path}")
        yield from found


def row_file_kind(path: Path) -> RowFileKind | None:
    """The kind of a file by its name; None for a file without rows."""
    path = located(path)
    return _KINDS.get(Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix)


def is_run_file(path: Path) -> bool:
    """Whether the name says that the file is a run: `.traj`, `.traj.gz`, or mini-swe-agent's `.traj.json`."""
    return ".traj" in path.suffixes[-3:]


def rows_of(path: Path) -> Iterator[Row | BadRow]:
    """The rows of one file.

    A document that lists the events or messages of one run is one row, and so are the session log of a coding agent and
    a folder with a file for each event (its first file gives the row, the others give none). Of
    a document that is an object keyed by index (`{"0": {...}, "1": {...}}`), each value is a row. A damaged Parquet
    file ends with a bad row. Raises DataError for a file that cannot be opened.
    """
    kind = row_file_kind(path)
    if kind == "lines":
        yield from whole_session(read_jsonl(path))
    elif kind == "document" and (files := event_files(path)):
        yield from run_of_events(files) if path.name == files[0].name else ()
    elif kind == "document":
        yield from _whole_run(_by_index(read_json(path)), path)
    else:
        line = 0
        try:
            for row in read_parquet(path):
                line = row.line
                yield row
        except DataError as error:
            yield damaged_parquet(path, line + 1, error)


def damaged_parquet(path: Path, line: int, error: DataError) -> BadRow:
    """The bad row that a damaged Parquet file ends with."""
    return BadRow(file=str(path), line=line, byte_offset=0, reason=DAMAGED_PARQUET, detail=str(error))


def row_at(path: Path, line: int, byte_offset: int) -> Row | BadRow | None:
    """Read one row of a file again; None if the file no longer contains it."""
    kind = row_file_kind(path)
    if kind == "lines":
        return next(read_jsonl(path, byte_offset=byte_offset, first_line=line, num_rows=1), None)
    if kind == "parquet":
        return next(read_parquet(path, first_row=line - 1, num_rows=1), None)
    return next((row for row in rows_of(path) if row.line == line), None)


def _by_index(rows: list[Row | BadRow]) -> list[Row | BadRow]:
    """The values of the only row, if all its keys are integers and all its values are objects."""
    only = rows[0] if len(rows) == 1 else None
    if not isinstance(only, Row) or not only.value or not all(key.isdecimal() for key in only.value):
        return rows
    return _rows_of_member(only, only.value) or rows


def lists_inside(only: Row) -> Iterator[list[Row | BadRow]]:
    """The rows of each list of objects, and of each object of objects, that is a member of an object or is itself one.

    Programs write their runs so, next to settings and scores: `{"meta": {...}, "logs": {"0": {...}, "1": {...}}}`.
    """
    members = (only.value, *only.value.values())
    return (rows for member in members if (rows := _rows_of_member(only, member)))


def _rows_of_member(only: Row, member: object) -> list[Row | BadRow]:
    """A row for each item of a list or value of an object, all of which must be objects; otherwise no rows."""
    items = list(member.values()) if isinstance(member, dict) else member
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return []
    return [
        Row(value=item, file=only.file, line=line, byte_offset=0, sha256=digest(item))
        for line, item in enumerate(items, start=1)
    ]


def _whole_run(rows: list[Row | BadRow], path: Path) -> list[Row | BadRow]:
    """One row for a list of events (`action` or `observation` with `source`, or `kind`) or of messages (`role`)."""
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
