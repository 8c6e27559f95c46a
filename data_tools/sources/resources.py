"""The resources of trajectories: task instances, complete files at the base commit, and databases.

Memory holds only the places of rows; a row is read again when it is used. Names in the data (an instance id, a
database, a file of a repository) are looked up here and are never opened as paths.

A repository serves an instance if it contains the base commit. Repositories whose remote is the instance's `repo` are
tried first, then those whose folder has its name (`owner__name`, `owner/name`, `name`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from acc_megatron.common.atomic_files import sha256_file
from acc_megatron.common.json_rows import BadRow, Row, parsed_line, read_lines
from acc_megatron.data_tools.rows.fields import embedded_object
from acc_megatron.data_tools.rows.row_files import row_at, row_file_kind, rows_of
from acc_megatron.data_tools.sources.search.judged_answers import JudgeVerdict
from acc_megatron.data_tools.sources.sql.table_text import TableFormat
from acc_megatron.data_tools.sources.swe.git_files import GitRepository
from acc_megatron.data_tools.sources.swe.harness_reports import HarnessReports
from acc_megatron.data_tools.sources.swe.multi_swe_bench import as_instance, is_pull_request
from acc_megatron.data_tools.sources.swe.report_contents import can_be_run, verdicts_of_row
from acc_megatron.data_tools.sources.tasks import RUN_KEYS, task_name_of_run, task_of
from acc_megatron.errors import DataError

DATABASE_SUFFIXES = {".sqlite", ".sqlite3", ".db"}
MAX_PATH_CHARACTERS = 255
_MAX_COMMITS = 4  # the listings of this many commits stay in memory
_NAMED_KEYS = (b'"patch"', b'"files_at_base_commit"', b'"sol_sql"')  # of tasks and file stores
_VERDICT_KEYS = (b'"resolved"', b'"passed"', b'"success"')
_MAX_VERDICT_BYTES = 1 << 16  # of a row that only judges a run


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEntry:
    """One task instance: its names, the first line of its problem statement, and the place of its row."""

    id: str
    repo: str
    title: str
    file: Path
    line: int
    byte_offset: int


@dataclass(slots=True)
class Resources:
    """The index of all resources; `num_rows` counts the rows that are resources."""

    instances: dict[str, InstanceEntry] = field(default_factory=dict)
    stores: dict[str, InstanceEntry] = field(default_factory=dict)
    databases: dict[str, Path] = field(default_factory=dict)
    # question or id -> fields of the task (tasks.py); None for a question of several tasks
    tasks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    repositories: list[GitRepository] = field(default_factory=list)
    reports: HarnessReports = field(default_factory=HarnessReports)
    verdicts: Mapping[str, JudgeVerdict] = field(default_factory=dict)  # of a judge, on answers of search runs
    table_format: TableFormat = "markdown"
    num_rows: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    _items: tuple[Path, list[Row | BadRow]] | None = None
    _commit_files: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)

    def database(self, name: str) -> Path | None:
        """The SQLite file whose name without suffix is `name`, in any case; of a path only the file name is used."""
        path = PurePosixPath(name)
        return self.databases.get((path.stem if path.suffix.lower() in DATABASE_SUFFIXES else name).lower())

    def instance(self, instance_id: str) -> dict[str, Any]:
        """The row of a known instance."""
        return self._read(self.instances[instance_id])

    def files(self, instance_id: str, instance: dict[str, Any] | None = None) -> Mapping[str, str]:
        """Repository-relative path -> complete text at the base commit; empty without a store or repository for it.

        `instance` is the row of an instance that is not in this index. Files with unsafe names are left out.
        """
        if instance_id in self.stores:
            found = embedded_object(self._read(self.stores[instance_id])["files_at_base_commit"])
            return {path: text for path, text in found.items() if isinstance(text, str) and is_safe_path(path)}
        if instance is None:
            instance = self.instance(instance_id) if instance_id in self.instances else {}
        repo, commit = str(instance.get("repo", "")).lower(), str(instance.get("base_commit", ""))
        if (repo, commit) not in self._commit_files:
            if len(self._commit_files) >= _MAX_COMMITS:
                self._commit_files.pop(next(iter(self._commit_files)))
            self._commit_files[repo, commit] = self._files_of_commit(repo, commit)
        return self._commit_files[repo, commit]

    def _files_of_commit(self, repo: str, commit: str) -> Mapping[str, str]:
        names = (repo, repo.partition("/")[2])
        fitting = [
            (found.names.index(name), i)
            for name in names
            for i, found in enumerate(self.repositories)
            if name in found.names
        ]
        tried = dict.fromkeys(i for _, i in sorted(fitting))
        return next((files for i in tried if (files := self.repositories[i].files(commit))), {})

    def add_repository(self, repository: GitRepository) -> None:
        """Add a git repository on this machine."""
        self.repositories.append(repository)

    def add_database(self, path: Path) -> None:
        """Add a SQLite file under its name. Raises DataError if another file of that name has other bytes."""
        other = self.databases.setdefault(path.stem.lower(), path)
        if other != path and sha256_file(other) != sha256_file(path):
            raise DataError(
                f"two different databases have the name {path.stem!r}: {other} and {path}; give only one of them"
            )

    def add_rows(self, path: Path, *, keep_bad_rows: bool) -> None:
        """Add the task instances and file stores among the rows of a file; other rows are skipped."""
        for row in _candidates(path, keep_bad_rows):
            if isinstance(row, BadRow):
                self.bad_rows.append(row)
            elif is_resource(row.value):
                self.num_rows += 1
                if (task := task_of(row.value)) is not None:
                    name, fields = task
                    if self.tasks.setdefault(name, fields) != fields:
                        self.tasks[name] = None
                elif is_pull_request(row.value) or _is_instance(row.value) or _is_store(row.value):
                    self._add(replace(row, value=as_instance(row.value)), path)
                else:
                    self.reports.add_row(row.value, path)

    def with_task(self, value: dict[str, Any]) -> dict[str, Any]:
        """A run as published, which has only the question or the id of its task, with the fields of the task."""
        task = self.tasks.get(task_name_of_run(value)) if self.tasks else None
        return value | task if task and "gold_sql" not in value else value

    def _add(self, row: Row, path: Path) -> None:
        value, instance_id = row.value, str(row.value["instance_id"])
        statement = value.get("problem_statement")
        title = statement.strip().partition("\n")[0].strip() if isinstance(statement, str) else ""
        entry = InstanceEntry(
            id=instance_id,
            repo=str(value.get("repo", "")),
            title=title,
            file=path,
            line=row.line,
            byte_offset=row.byte_offset,
        )
        for kind, known in ((_is_instance, self.instances), (_is_store, self.stores)):
            if kind(value) and known.setdefault(instance_id, entry) is not entry:
                first = known[instance_id]
                if (first.file, first.line) != (path, row.line) and self._read(first) != value:
                    raise DataError(
                        f"{path}:{row.line}: instance {instance_id!r} differs from the one at {first.file}:{first.line}"
                    )

    def _read(self, entry: InstanceEntry) -> dict[str, Any]:
        row: Row | BadRow | None
        if row_file_kind(entry.file) == "document":
            if self._items is None or self._items[0] != entry.file:  # the last document stays parsed
                self._items = (entry.file, list(rows_of(entry.file)))
            row = next((item for item in self._items[1] if item.line == entry.line), None)
        else:
            row = row_at(entry.file, entry.line, entry.byte_offset)
        value = as_instance(row.value) if isinstance(row, Row) else {}
        if value.get("instance_id") != entry.id:
            raise DataError(
                f"{entry.file}:{entry.line} changed during the run and no longer contains instance {entry.id!r}"
            )
        return value


def is_safe_path(path: str) -> bool:
    """Whether a name in the data is a plain repository-relative path; it is only a label and is never opened."""
    parts = PurePosixPath(path).parts
    is_plain = bool(parts) and len(path) <= MAX_PATH_CHARACTERS and path.isprintable() and "\\" not in path
    return is_plain and not path.startswith("/") and ".." not in parts


def is_resource(value: dict[str, Any]) -> bool:
    """Whether a row is a task (SWE-bench, or see tasks.py), a file store, a prediction (a patch), or only a verdict."""
    kinds = (_is_instance, _is_store, _is_task, _is_prediction, _is_verdict, is_pull_request)
    return any(is_of_kind(value) for is_of_kind in kinds)


def _is_instance(value: dict[str, Any]) -> bool:
    return _is_named(value) and isinstance(value.get("patch"), str)


def _is_store(value: dict[str, Any]) -> bool:
    return _is_named(value) and bool(embedded_object(value.get("files_at_base_commit")))


def _is_task(value: dict[str, Any]) -> bool:
    return task_of(value) is not None


def _is_prediction(value: dict[str, Any]) -> bool:
    """Whether a row is a prediction for the SWE-bench harness, or a `preds.json` with predictions by instance."""
    if "model_patch" in value or "fix_patch" in value:  # of SWE-bench, and of Multi-SWE-bench
        return RUN_KEYS.isdisjoint(value) and not can_be_run(value)
    return bool(value) and all(isinstance(item, dict) and "model_patch" in item for item in value.values())


def _is_verdict(value: dict[str, Any]) -> bool:
    """Whether a row has the id of an instance and a verdict, and no run."""
    return _is_named(value) and bool(verdicts_of_row(value))


def _is_named(value: dict[str, Any]) -> bool:
    return isinstance(value.get("instance_id"), str) and RUN_KEYS.isdisjoint(value)


def _candidates(path: Path, keep_bad_rows: bool) -> Iterator[Row | BadRow]:
    """Rows that may be resources; only lines that contain the bytes of the keys are parsed, to save time."""
    if row_file_kind(path) == "lines" and not keep_bad_rows:
        for line in read_lines(path):
            data = line.data or b""
            keys = (*_NAMED_KEYS, *(_VERDICT_KEYS if len(data) <= _MAX_VERDICT_BYTES else ()))
            is_named = b'"instance_id"' in data and any(key in data for key in keys)
            is_task = b'"query"' in data and (b'"gold"' in data or b'"query_id"' in data)
            if is_named or is_task or b'"fix_patch"' in data:
                yield from (row for row in parsed_line(line, path) if isinstance(row, Row))
        return
    yield from (row for row in rows_of(path) if keep_bad_rows or isinstance(row, Row))
