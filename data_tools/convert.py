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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.data_tools.atomic import sha256_file, write_json
from acc_megatron.data_tools.dataset_folder import need_free_or_dataset
from acc_megatron.data_tools.examples_in import input_files, row_ranges
from acc_megatron.data_tools.fast_encoder import ENGINES
from acc_megatron.data_tools.merge import PLAN, merge
from acc_megatron.data_tools.progress import Progress
from acc_megatron.data_tools.render import TEMPLATES
from acc_megatron.data_tools.shards import ConvertSettings, ShardTask, make_shard, tokenizer_on
from acc_megatron.errors import DataError

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
    tasks = plan_shards(inputs, out, settings, engine=engine)
    make_shards(tasks, runner or in_processes(num_workers))
    return merge(out, max_bad_share=max_bad_share)


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
    tasks = plan_shards(inputs, out, settings, engine=engine)
    mine = tasks[index::count]
    make_shards(mine, in_processes(num_workers))
    return {"shards_made": len(mine), "shards": len(tasks)}


def plan_shards(inputs: list[Path], out: Path, settings: ConvertSettings, *, engine: str) -> list[ShardTask]:
    """Cut the input into shards and write down, in the work folder beside `out`, what `merge` needs to know."""
    if settings.template not in TEMPLATES:
        raise DataError(f"unknown template {settings.template!r}; known: {', '.join(TEMPLATES)}")
    if engine not in ENGINES:
        raise DataError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    need_free_or_dataset(out)
    tokenizer = tokenizer_on(settings.tokenizer, engine)
    files = input_files(inputs)
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
        "inputs": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files],
        "shards": len(ranges),
    }
    work = _work_folder(out, plan)
    if not (work / PLAN).is_file():
        write_json(work / PLAN, plan)
    return [ShardTask(rows, settings, work / f"{number:05d}", engine) for number, rows in enumerate(ranges)]


def _work_folder(out: Path, plan: dict[str, Any]) -> Path:
    """Where finished shards wait; what another input or setting left there is removed."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    work = out.with_name(f".{out.name}.work-{digest}")
    for old in out.parent.glob(f".{glob.escape(out.name)}.work-*") if out.parent.is_dir() else ():
        if old != work:
            shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    return work


def make_shards(tasks: list[ShardTask], runner: Runner) -> None:
    """Make the shards that are not there yet, showing progress."""
    todo = [task for task in tasks if not task.folder.is_dir()]
    if len(todo) < len(tasks):
        print(f"convert: {len(tasks) - len(todo)} of {len(tasks)} shards are there already", file=sys.stderr)
    progress = Progress("convert", len(todo))
    for done, counts in enumerate(runner(todo), start=1):
        progress.reach(done)
        progress.add(**counts)
    progress.finish()


def in_processes(num_workers: int) -> Runner:
    """A runner of `num_workers` processes on this machine; one works in the calling process."""

    def run(tasks: list[ShardTask]) -> Iterator[dict[str, Any]]:
        if num_workers <= 1 or len(tasks) <= 1:
            yield from map(make_shard, tasks)
            return
        from concurrent.futures import ProcessPoolExecutor, as_completed

        with ProcessPoolExecutor(min(num_workers, len(tasks)), initializer=_end_with_parent) as pool:
            for future in as_completed([pool.submit(make_shard, task) for task in tasks]):
                yield future.result()

    return run


def _end_with_parent() -> None:
    """A killed parent must not leave its workers waiting for ever, or writing under the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
