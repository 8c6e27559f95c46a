"""Which files a compile reads: inputs and resources given as files or folders, in one stated order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.data_tools.jsonl import BadRow, Row, read_json, read_jsonl
from acc_megatron.data_tools.resources import DATABASE_SUFFIXES, DOCUMENT_SUFFIXES, LINE_SUFFIXES, Resources
from acc_megatron.data_tools.sqlite_readonly import is_database
from acc_megatron.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files with rows, sorted; the resources found; and the files in folders that are neither."""

    files: tuple[Path, ...]
    resources: Resources
    resource_files: tuple[Path, ...]
    ignored: tuple[Path, ...]


def discover(inputs: Iterable[Path], resources: Iterable[Path] = (), *, exclude: Path | None = None) -> Inputs:
    """Walk inputs and resources; instances, whole-file stores and databases among the inputs are resources too.

    Hidden names and everything under `exclude` are passed over; a folder's files of other kinds are listed as
    ignored. Raises DataError for a path that is absent, a file given by name of an unknown kind, or no input at all.
    """
    found, files, ignored = Resources(), [], []
    resource_files = list(_walk(resources, exclude))
    for path in (input_files := list(_walk(inputs, exclude))):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif path.suffix in LINE_SUFFIXES | DOCUMENT_SUFFIXES:
            files.append(path)
            if path.suffix != ".traj":  # always a run
                found.add_rows(path, keep_bad_rows=False)
        else:
            ignored.append(path)
    known = {path.resolve() for path in input_files}
    for path in (path for path in resource_files if path.resolve() not in known):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif path.suffix in LINE_SUFFIXES | {".json"}:
            found.add_rows(path, keep_bad_rows=True)
    if not files:
        raise DataError("no .jsonl, .ndjson, .json or .traj file among the inputs")
    return Inputs(files=tuple(files), resources=found, resource_files=tuple(resource_files), ignored=tuple(ignored))


def find_resources(paths: Iterable[Path]) -> Resources:
    """The databases among files and folders, for a step that reads no trajectories."""
    found = Resources()
    for path in _walk(paths, None):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
    return found


def rows_of(path: Path) -> Iterator[Row | BadRow]:
    """The rows of one input file: lines of JSON lines, or the one document of `.json` and `.traj`."""
    yield from read_jsonl(path) if path.suffix in LINE_SUFFIXES else read_json(path)


def _walk(paths: Iterable[Path], exclude: Path | None) -> Iterator[Path]:
    """Files by given order, inside a folder by name; one file once, however often it is given."""
    seen = set()
    for root in paths:
        if not root.exists():
            raise DataError(f"no input at {root}")
        if root.is_file() and root.suffix not in LINE_SUFFIXES | DOCUMENT_SUFFIXES | DATABASE_SUFFIXES:
            raise DataError(f"{root} is not .jsonl, .ndjson, .json, .traj or a SQLite file")
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            excluded = exclude is not None and path.absolute().is_relative_to(exclude.absolute())
            if path.is_file() and not hidden and not excluded and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path
