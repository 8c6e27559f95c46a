"""Triples to a dataset folder: each shard a pure function of a slice of the input, published whole.

A finished shard is kept when a run is killed and not made again by the next one. The bytes do not depend on
the number of workers or machines, on the engine, on kills, or on where the input lies.
"""

import glob
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.data_tools.atomic import held, landing, sha256_file, size_and_time, write_json
from acc_megatron.data_tools.dataset_folder import need_free_or_dataset
from acc_megatron.data_tools.examples_in import input_files, row_ranges
from acc_megatron.data_tools.fast_encoder import ENGINES
from acc_megatron.data_tools.merge import PLAN, publish
from acc_megatron.data_tools.progress import Progress
from acc_megatron.data_tools.render import TEMPLATES
from acc_megatron.data_tools.row_files import expanded
from acc_megatron.data_tools.shards import ConvertSettings, ShardTask, make_shard, tokenizer_on
from acc_megatron.errors import DataError, EnvironmentProblem

ROWS_PER_SHARD = 256
# takes the tasks that are to be made and yields the counts of each as it is done
Runner = Callable[[list[ShardTask]], Iterator[dict[str, Any]]]


def convert(
    inputs: list[Path],
    out: Path,
    settings: ConvertSettings,
    *,
    num_workers: int = 1,
    max_bad_share: float = 0.01,
    engine: str = "auto",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Convert triples or published ACC rows into the dataset folder `out`; returns its manifest.

    Rows that break a rule are dropped with a reason; rows that cannot be read or are of an unknown shape are
    quarantined, and more than `max_bad_share` of those raises TooManyBadRows. `runner` makes the shards in
    place of `num_workers` local processes. Raises DataError.
    """
    plan = plan_shards(inputs, out, settings, engine=engine)
    with held(plan.work) as is_free:
        if not is_free:
            raise _being_made(plan.out)
        make_shards(plan, plan.tasks, runner or in_processes(num_workers))
        return publish(plan.work, plan.out, max_bad_share=max_bad_share)


def convert_part(
    inputs: list[Path],
    out: Path,
    settings: ConvertSettings,
    *,
    part: tuple[int, int],
    num_workers: int = 1,
    engine: str = "auto",
) -> dict[str, int]:
    """Make every n-th shard of `out` from the i-th on, `part` = (i, n) with i from 0; `merge` publishes them later.

    Parts may run on any machines that share the folder of `out`. Returns how many shards this part has, of all.
    """
    index, count = part
    plan = plan_shards(inputs, out, settings, engine=engine)
    mine = plan.tasks[index::count]
    with held(plan.work, shared=True) as is_free:
        if not is_free:
            raise _being_made(plan.out)
        make_shards(plan, mine, in_processes(num_workers))
    return {"shards_made": len(mine), "shards": len(plan.tasks)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A conversion as planned: its folder, where shards wait for it, and each input's stamp and SHA-256 when read."""

    out: Path
    work: Path
    tasks: list[ShardTask]
    inputs: dict[Path, tuple[tuple[int, int], str]]

    def need_same_inputs(self) -> None:
        """Raise DataError for an input that was changed since it was planned with."""
        for path, (stamp, sha256) in self.inputs.items():
            try:
                is_same = size_and_time(path) == stamp or sha256_file(path) == sha256
            except OSError:
                is_same = False
            if not is_same:
                raise DataError(f"{path} changed while it was read: run again when nobody writes to it")


def _is_utf8(text: str) -> bool:
    """Whether a path's bytes are UTF-8; Python keeps others as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def plan_shards(inputs: list[Path], out: Path, settings: ConvertSettings, *, engine: str) -> Plan:
    """Cut the input into shards and write down, in the work folder beside `out`, what `merge` needs to know."""
    out = landing(out)
    if settings.template not in TEMPLATES:
        raise DataError(f"unknown template {settings.template!r}; known: {', '.join(TEMPLATES)}")
    if engine not in ENGINES:
        raise DataError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    need_free_or_dataset(out)
    for folder in expanded(inputs):
        if folder.is_dir() and out.is_relative_to(folder.resolve()):
            raise DataError(f"--out {out} lies in the input {folder}, which would be read with it: give one beside it")
    tokenizer = tokenizer_on(settings.tokenizer, engine)
    files = input_files(inputs)
    for path in (out, *files):
        if not _is_utf8(str(path)):
            raise DataError(f"{str(path)!a} is no UTF-8 name, so no manifest can hold it: rename it")
    stamps = [size_and_time(file) for file in files]
    hashes = [sha256_file(file) for file in files]
    ranges = [rows for file in files for rows in row_ranges(file, ROWS_PER_SHARD)]
    plan = {
        "code_version": __version__,
        "settings": asdict(settings),
        "tokenizer": {
            "name": tokenizer.name,
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.control["<|endoftext|>"],
        },
        "inputs": [
            {"name": file.name, "bytes": stamp[0], "sha256": sha256}
            for file, stamp, sha256 in zip(files, stamps, hashes, strict=True)
        ],
        "shards": len(ranges),
    }
    work = _work_folder(out, plan)
    if not (work / PLAN).is_file():
        write_json(work / PLAN, plan)
    tasks = [ShardTask(rows, settings, work / f"{number:05d}", engine) for number, rows in enumerate(ranges)]
    seen = dict(zip(files, zip(stamps, hashes, strict=True), strict=True))
    return Plan(out=out, work=work, tasks=tasks, inputs=seen)


def _work_folder(out: Path, plan: dict[str, Any]) -> Path:
    """Where finished shards wait; what another input or setting left there is removed."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    work = out.with_name(f".{out.name}.work-{digest}")
    for old in out.parent.glob(f".{glob.escape(out.name)}.work-*") if out.parent.is_dir() else ():
        if old != work:
            with held(old) as is_free:
                if not is_free:
                    raise _being_made(out)
                shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    return work


def _being_made(out: Path) -> DataError:
    return DataError(f"{out} is being made by another process: wait for it, or give another --out")


def make_shards(plan: Plan, tasks: list[ShardTask], runner: Runner) -> None:
    """Make those of a plan's shards that are not there yet, showing progress; none is kept of an input that changed."""
    todo = [task for task in tasks if not task.folder.is_dir()]
    if len(todo) < len(tasks):
        print(f"convert: {len(tasks) - len(todo)} of {len(tasks)} shards are there already", file=sys.stderr)
    progress = Progress("convert", len(todo))
    for done, counts in enumerate(runner(todo), start=1):
        progress.reach(done)
        progress.add(**counts)
    progress.finish()
    try:
        plan.need_same_inputs()
    except DataError:
        for task in todo:
            shutil.rmtree(task.folder)
        raise


def in_processes(num_workers: int) -> Runner:
    """A runner of `num_workers` processes on this machine; one works in the calling process."""

    def run(tasks: list[ShardTask]) -> Iterator[dict[str, Any]]:
        if num_workers <= 1 or len(tasks) <= 1:
            yield from map(make_shard, tasks)
            return
        from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
        from concurrent.futures.process import BrokenProcessPool

        rest = iter(tasks)
        with ProcessPoolExecutor(min(num_workers, len(tasks)), initializer=_end_with_parent) as pool:
            # few wait at a time, so that the first error ends the run and not the last shard
            waiting = {pool.submit(make_shard, task) for task in islice(rest, 2 * num_workers)}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    waiting |= {pool.submit(make_shard, task) for task in islice(rest, len(done))}
                    yield from (future.result() for future in done)
            except BrokenProcessPool:
                raise EnvironmentProblem(
                    "a worker process was killed, most often because memory ran out: run the same command with fewer "
                    "--workers; the shards that are finished are kept"
                ) from None

    return run


def _end_with_parent() -> None:
    """A killed parent must not leave its workers waiting for ever, or writing under the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
