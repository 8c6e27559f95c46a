"""Which files a compile reads: inputs and resources given as files, globs, folders or `-`, in one stated order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.data_tools.git_files import GitRepository, git_folder
from acc_megatron.data_tools.jsonl import BadRow, Row
from acc_megatron.data_tools.progress import Progress
from acc_megatron.data_tools.resources import DATABASE_SUFFIXES, Resources
from acc_megatron.data_tools.row_files import KNOWN_NAMES, expanded, is_run_file, row_file_kind, rows_of
from acc_megatron.data_tools.sources.messages import with_plain_messages
from acc_megatron.data_tools.sqlite_readonly import is_database
from acc_megatron.data_tools.streams import STANDARD_INPUT, located
from acc_megatron.data_tools.table_text import TableFormat
from acc_megatron.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files with rows, sorted; the resources found; and the files in folders that are neither."""

    files: tuple[Path, ...]
    resources: Resources
    resource_files: tuple[Path, ...]
    ignored: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all files with rows, as they lie on disk."""
        return sum(located(path).stat().st_size for path in self.files)

    def rows(self, progress: Progress) -> Iterator[Row | BadRow]:
        """The rows of all files, messages in their one form; `progress` is told how many of `num_bytes` are behind."""
        done = 0
        for path in self.files:
            size = located(path).stat().st_size
            for row in rows_of(path):
                yield row if isinstance(row, BadRow) else with_plain_messages(row)
                progress.reach(done + min(row.byte_offset, size))
            done += size
            progress.reach(done)


def discover(
    inputs: Iterable[Path],
    resources: Iterable[Path] = (),
    *,
    exclude: Path | None = None,
    table_format: TableFormat = "markdown",
) -> Inputs:
    """Walk inputs and resources; instances, whole-file stores and databases among the inputs are resources too.

    A git repository among the resources, or in a folder that is one of them, gives files at base commits and is not
    walked for rows. Hidden names and everything under `exclude` are passed over; a folder's files of other kinds, and
    its links that lead outside, are listed as ignored. Raises DataError for a path that is absent, a file given by name
    of an unknown kind, or no input.
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
    for path in (input_files := list(_walk(expanded(inputs), exclude, ignored))):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif row_file_kind(path):
            files.append(path)
            if not is_run_file(path):
                found.add_rows(path, keep_bad_rows=False)
        else:
            ignored.append(path)
    known = {path.resolve() for path in input_files}
    for path in (path for path in resource_files if path.resolve() not in known):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
        elif row_file_kind(path) and not is_run_file(path):
            found.add_rows(path, keep_bad_rows=True)
    if not files:
        raise DataError(f"no {KNOWN_NAMES} file among the inputs")
    return Inputs(files=tuple(files), resources=found, resource_files=tuple(resource_files), ignored=tuple(ignored))


def _parts(root: Path) -> list[Path]:
    """The path itself, or what is in it where that is a folder of git repositories."""
    if not root.is_dir() or git_folder(root) is not None:
        return [root]
    inside = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    if all(git_folder(path) is None for path in inside):
        return [root]
    return [path for path in inside if path.is_dir() or _is_known(path)]


def _is_known(path: Path) -> bool:
    return row_file_kind(path) is not None or path.suffix in DATABASE_SUFFIXES


def find_resources(paths: Iterable[Path]) -> Resources:
    """The databases among files and folders, for a step that reads no trajectories."""
    found = Resources()
    for path in _walk(paths, None, []):
        if path.suffix in DATABASE_SUFFIXES and is_database(path):
            found.add_database(path)
    return found


def _walk(paths: Iterable[Path], exclude: Path | None, ignored: list[Path]) -> Iterator[Path]:
    """Files by given order, inside a folder by name; one file once, however often it is given."""
    seen = set()
    for root in paths:
        if root == STANDARD_INPUT:
            yield root
            continue
        if root.is_file() and not _is_known(root):
            raise DataError(f"{root} is not {KNOWN_NAMES}, nor a SQLite file")
        inside = root.resolve()
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            excluded = exclude is not None and path.absolute().is_relative_to(exclude.absolute())
            if not path.is_file() or hidden or excluded or (target := path.resolve()) in seen:
                continue
            seen.add(target)
            if target.is_relative_to(inside):
                yield path
            else:
                ignored.append(path)
