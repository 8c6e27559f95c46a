"""The folder next to an output that keeps its finished shards: a killed run continues there, and `merge` reads it."""

import glob
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import acc_megatron.common
from acc_megatron.common.atomic_files import sha256_file, size_and_time, write_json
from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.progress import Progress
from acc_megatron.data_tools.sharding.worker_processes import Make, Runner, Task
from acc_megatron.errors import DataError

RECORD = "record.json"
TaskT = TypeVar("TaskT", bound=Task)
# the code that decides what the rows of a shard become; acc_megatron.errors only carries messages
_CODE_FOLDERS = [Path(__file__).parents[1], *map(Path, acc_megatron.common.__path__)]


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file as it was before it was read: `stamp` is its size and time of last write."""

    path: Path
    stamp: tuple[int, int]
    sha256: str

    @classmethod
    def at(cls, path: Path) -> "InputFile":
        """The file at `path` as it is now."""
        return cls(path, size_and_time(path), sha256_file(path))

    def check_unchanged(self) -> None:
        """Raise DataError when the file has changed since."""
        try:
            is_same = size_and_time(self.path) == self.stamp or sha256_file(self.path) == self.sha256
        except OSError:
            is_same = False
        if not is_same:
            raise DataError(f"{self.path} changed while it was read: run again when no process writes to it")


def open_work_folder(out: Path, record: Mapping[str, Any]) -> Path:
    """The folder for the finished shards of `out`, with the record that `merge` needs.

    Folders left by other inputs, other settings or other code are removed.
    """
    identity = json.dumps(record, sort_keys=True) + code_sha256(_CODE_FOLDERS)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    work = out.with_name(f".{out.name}.work-{digest}")
    for old in _work_folders(out):
        if old != work:
            with folder_lock(old) as is_locked:
                if not is_locked:
                    raise in_use(out)
                shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / RECORD).is_file():
        write_json(work / RECORD, record)
    return work


def code_sha256(folders: Sequence[Path]) -> str:
    """SHA-256 of the paths and texts of all Python files in the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            text = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(text)} ".encode() + text)
    return digest.hexdigest()


def find_work_folder(out: Path) -> Path | None:
    """The folder with the finished shards of `out`; the remains of one that a killed `merge` left are removed."""
    for path in _work_folders(out):
        if (path / RECORD).is_file():
            return path
        with folder_lock(path) as is_locked:
            if is_locked:
                shutil.rmtree(path)
    return None


def read_record(work: Path) -> Any:
    """The record of a work folder."""
    return json.loads((work / RECORD).read_bytes())


def remove_work_folder(work: Path) -> None:
    """Remove a work folder; its record first, so that a work folder with a record always has its shards."""
    (work / RECORD).unlink()
    shutil.rmtree(work)


def shard_folders(work: Path, num_shards: int) -> list[Path]:
    """The folder of each shard."""
    return [work / f"{number:05d}" for number in range(num_shards)]


def complete_shards(work: Path, out: Path, num_shards: int) -> list[Path]:
    """The folders of all shards. Raises DataError when shards are missing, naming them."""
    shards = shard_folders(work, num_shards)
    missing = [number for number, shard in enumerate(shards) if not shard.is_dir()]
    if missing:
        few = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{len(missing)} of {len(shards)} shards of {out} are missing: {few}; make them, then merge")
    return shards


def make_shards(verb: str, tasks: Sequence[Task], make: Make, runner: Runner, inputs: Sequence[InputFile]) -> None:
    """Make the shards that do not exist yet, showing progress. Raises DataError when an input changed meanwhile."""
    todo = [task for task in tasks if not task.folder.is_dir()]
    if len(todo) < len(tasks):
        print(f"{verb}: {len(tasks) - len(todo)} of {len(tasks)} shards already exist", file=sys.stderr)
    progress = Progress(verb, len(todo))
    for done, counts in enumerate(runner(todo, make), start=1):
        progress.reach(done)
        progress.add(**counts)
    progress.finish()
    try:
        for file in inputs:
            file.check_unchanged()
    except DataError:
        for task in todo:
            shutil.rmtree(task.folder)
        raise


def make_part(
    part: tuple[int, int], tasks: Sequence[TaskT], work: Path, out: Path, make: Callable[[list[TaskT]], None]
) -> dict[str, int]:
    """Call `make` with every n-th task, starting with the i-th (`part` = (i, n), i from 0), for a later `merge`.

    Other jobs may make other parts at the same time. Returns how many shards this part has, and how many there are.
    Raises DataError when a process makes all of `out`.
    """
    index, count = part
    mine = list(tasks[index::count])
    with folder_lock(work, shared=True) as is_locked:
        if not is_locked:
            raise in_use(out)
        make(mine)
    return {"shards_made": len(mine), "shards": len(tasks)}


def in_use(out: Path) -> DataError:
    """The error for an output that another process is writing."""
    return DataError(f"another process is writing {out}: wait until it ends, or give another --out")


def _work_folders(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{glob.escape(out.name)}.work-*")) if out.parent.is_dir() else []
