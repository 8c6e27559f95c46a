"""The files that compile reads: inputs and resources, given as files, globs, folders or `-`, in a fixed order."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from acc_megatron.common.json_bytes import content_bytes
from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.common.streams import STANDARD_INPUT
from acc_megatron.data_tools.rows.embedded_images import may_have_images, without_images
from acc_megatron.data_tools.rows.row_files import (
    KNOWN_NAMES,
    expanded,
    is_run_file,
    lists_inside,
    row_file_kind,
    rows_of,
)
from acc_megatron.data_tools.sharding.row_ranges import RowRange, is_divisible, read_run_rows, row_ranges
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.known_agents import agent_of, describe_row
from acc_megatron.data_tools.sources.resources import DATABASE_SUFFIXES, Resources, is_resource
from acc_megatron.data_tools.sources.sql.sqlite_readonly import is_database
from acc_megatron.data_tools.sources.sql.table_text import TableFormat
from acc_megatron.data_tools.sources.swe.git_files import GitRepository, git_folder
from acc_megatron.data_tools.sources.swe.harness_reports import REPORT_NAMES
from acc_megatron.data_tools.sources.tasks import RUN_KEYS
from acc_megatron.errors import DataError

_NUM_FIRST_ROWS = 20
_MAX_LABEL_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files with rows, in their order; the resources; and the ignored files of folders.

    `found` are the files that no input names, because a folder contains them. `sidecars` are those of them that turned
    out to contain no run when they were read (`report.json`, `metadata.json`), with what they contain.
    """

    files: tuple[Path, ...]
    resources: Resources
    resource_files: tuple[Path, ...]
    ignored: tuple[Path, ...]
    found: frozenset[Path] = frozenset()
    sidecars: dict[Path, str] = field(default_factory=dict)

    def ranges(self, rows_per_range: int) -> Iterator[RowRange]:
        """The files in slices of at most `rows_per_range` rows; a file whose rows depend on each other is one slice."""
        for path in self.files:
            if is_divisible(path) and self._contents_if_sidecar(path) is None:
                yield from row_ranges(path, rows_per_range)
            else:
                yield RowRange(path=path)

    def rows(self, part: RowRange) -> Iterator[Row | BadRow]:
        """The rows of a slice, with messages in OpenAI's form.

        The SHA-256 of a row is that of its content, so that JSON and Parquet spellings of a run have the same id.
        """
        for row in self._rows_of_runs(part.path) if part.num_rows is None else read_run_rows(part):
            yield row if isinstance(row, BadRow) else self._as_run(row)

    def _as_run(self, row: Row) -> Row:
        content = content_bytes(row.value)
        value, num_images = self.resources.with_task(row.value), 0
        if may_have_images(content):
            value, num_images = without_images(value)
        digest = hashlib.sha256(content).hexdigest()
        return with_openai_messages(replace(row, value=value, sha256=digest, images_removed=num_images))

    def _is_run(self, row: Row | BadRow) -> bool:
        return isinstance(row, Row) and agent_of(self._as_run(row).value) is not None

    def _rows_of_runs(self, path: Path) -> Iterable[Row | BadRow]:
        """The rows of a file, also of runs that a document has next to other things; none of a sidecar."""
        if (contents := self._contents_if_sidecar(path)) is not None:
            self.sidecars[path] = contents
            return ()
        if row_file_kind(path) != "document":
            return rows_of(path)
        rows = list(rows_of(path))
        only = rows[0] if len(rows) == 1 else None
        if isinstance(only, Row) and not is_resource(only.value) and not self._is_run(only):
            rows = next((inside for inside in lists_inside(only) if any(map(self._is_run, inside))), rows)
        if path not in self.found or is_run_file(path) or (contents := _contents_of_sidecar(rows)) is None:
            return rows
        self.sidecars[path] = contents
        return ()

    def _contents_if_sidecar(self, path: Path) -> str | None:
        """What JSON lines in a folder contain if the first of them are small and not runs; None for other files."""
        if path not in self.found or row_file_kind(path) != "lines":
            return None
        return _contents_of_sidecar(list(islice(rows_of(path), _NUM_FIRST_ROWS)))


def _contents_of_sidecar(rows: list[Row | BadRow]) -> str | None:
    """What a file without a run contains; None if it has a run, a resource, or rows that may be runs."""
    if rows and all(isinstance(row, BadRow) and row.reason == "not_an_object" for row in rows):
        return "no object"
    for row in rows:
        if not isinstance(row, Row) or is_resource(row.value) or not RUN_KEYS.isdisjoint(row.value):
            return None
        if len(rows) > 1 and any(map(_can_be_run, row.value.values())):
            return None
        if agent_of(with_openai_messages(row).value):
            return None
    return describe_row(rows[0].value) if rows and isinstance(rows[0], Row) else None


def _can_be_run(value: object) -> bool:
    """Whether a value is long enough to contain a run: a list or a longer text."""
    return (isinstance(value, list) and bool(value)) or (isinstance(value, str) and len(value) > _MAX_LABEL_CHARACTERS)


def discover(
    inputs: Iterable[Path],
    resources: Iterable[Path] = (),
    *,
    exclude: Path | None = None,
    table_format: TableFormat = "markdown",
) -> Inputs:
    """Find all files of inputs and resources; task instances, file stores and databases of the inputs are resources.

    A git repository that is a resource, or that is directly inside a folder of resources, provides files at base
    commits and is not searched for rows. Hidden names and everything under `exclude` are skipped. Files of other types
    in a folder, and its links to outside of it, are listed as ignored, except links to the blobs of a Hugging Face
    cache. Raises DataError for a missing path, a named file of an unknown type, or no input.
    """
    found = Resources(table_format=table_format)
    files: list[Path] = []
    ignored: list[Path] = []
    resource_roots: list[Path] = []
    for root in (part for given in expanded(resources) for part in _parts(given)):
        if (folder := git_folder(root)) is not None:
            found.add_repository(GitRepository(root, folder))
        else:
            resource_roots.append(root)
    resource_files = list(_walk(resource_roots, exclude, ignored))
    roots = list(expanded(inputs))
    input_files = list(_walk(roots, exclude, ignored))
    reports = _add_reports(found, [*input_files, *resource_files])
    for path in (path for path in input_files if path not in reports):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif row_file_kind(path):
            files.append(path)
            if not is_run_file(path):
                found.add_rows(path, keep_bad_rows=False)
        else:
            ignored.append(path)
    known = {path.resolve() for path in input_files}
    for path in (path for path in resource_files if path.resolve() not in known and path not in reports):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif row_file_kind(path) and not is_run_file(path):
            found.add_rows(path, keep_bad_rows=True)
    if not files:
        raise DataError(f"the inputs contain no {KNOWN_NAMES} file")
    return Inputs(
        files=tuple(files),
        resources=found,
        resource_files=tuple(dict.fromkeys((*resource_files, *reports))),
        ignored=tuple(ignored),
        found=frozenset(files) - frozenset(roots),
    )


def _add_reports(found: Resources, paths: Iterable[Path]) -> dict[Path, None]:
    """Add the reports of test harnesses among the files, and next to them in the same folder; returns the reports."""
    files = dict.fromkeys(path for path in paths if path != STANDARD_INPUT)
    num_inside = Counter(path.parent for path in files)
    neighbours = (folder / name for folder in num_inside for name in REPORT_NAMES)
    for path in files:
        found.reports.files.setdefault(path.name, []).append(path)
    candidates = dict.fromkeys((*files, *(path for path in neighbours if path.is_file() and not path.is_symlink())))
    return {path: None for path in candidates if found.reports.add(path, has_runs=_has_others(path, files, num_inside))}


def _has_others(path: Path, files: Mapping[Path, None], num_inside: Mapping[Path, int]) -> bool:
    """Whether the folder of a file contains other files among `files`."""
    return num_inside[path.parent] > (path in files)


def _parts(root: Path) -> list[Path]:
    """The path itself, or its contents if it is a folder of git repositories."""
    if not root.is_dir() or git_folder(root) is not None:
        return [root]
    inside = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    if all(git_folder(path) is None for path in inside):
        return [root]
    return [path for path in inside if path.is_dir() or _is_known(path)]


def _is_known(path: Path) -> bool:
    return row_file_kind(path) is not None or path.suffix in DATABASE_SUFFIXES


def find_resources(paths: Iterable[Path]) -> Resources:
    """The databases among files and folders, for a command that reads no trajectories."""
    found = Resources()
    for path in _walk(paths, None, []):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
    return found


def _walk(paths: Iterable[Path], exclude: Path | None, ignored: list[Path]) -> Iterator[Path]:
    """Files in the given order, sorted by name inside a folder, each once."""
    seen = set()
    for root in paths:
        if root == STANDARD_INPUT:
            yield root
            continue
        if root.is_file() and not _is_known(root):
            raise DataError(f"{root} is neither {KNOWN_NAMES} nor a SQLite file")
        inside, blobs = root.resolve(), _blobs_of_cache(root)
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            excluded = exclude is not None and path.absolute().is_relative_to(exclude.absolute())
            is_blob = root.is_dir() and path.parent.name == "blobs" and path.parent.with_name("snapshots").is_dir()
            if not path.is_file() or hidden or excluded or is_blob or (target := path.resolve()) in seen:
                continue
            seen.add(target)
            if target.is_relative_to(inside) or target.parent == blobs:
                yield path
            else:
                ignored.append(path)


def _blobs_of_cache(root: Path) -> Path | None:
    """The folder that the links of a snapshot in a Hugging Face cache lead to; None for any other folder."""
    for folder in (root.absolute(), *root.absolute().parents):
        if folder.name == "snapshots" and folder.with_name("blobs").is_dir():
            return folder.with_name("blobs").resolve()
    return None
