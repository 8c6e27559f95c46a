"""Making shards in several processes on this machine."""

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypedDict

from acc_megatron.errors import EnvironmentProblem

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


class Task(Protocol):
    """One shard to make."""

    @property
    def folder(self) -> Path:
        """The folder that appears when the shard is complete."""


class ShardCounts(TypedDict):
    """The counts of one shard that the progress line shows."""

    documents: int
    tokens: int
    dropped: int


# makes one shard; a worker gets it once, and keeps what it loads
Make = Callable[[Any], ShardCounts]
# makes the shards of the given tasks and yields the counts of each one when it is finished
Runner = Callable[[list[Any], Make], Iterator[ShardCounts]]


def in_processes(num_workers: int) -> Runner:
    """A runner with `num_workers` processes; one worker runs in the calling process.

    Raises EnvironmentProblem when a worker process is killed.
    """

    def run(tasks: list[Any], make: Make) -> Iterator[ShardCounts]:
        if num_workers <= 1 or len(tasks) <= 1:
            with _rare_collections():
                yield from map(make, tasks)
            return
        from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
        from concurrent.futures.process import BrokenProcessPool

        remaining = iter(tasks)
        with ProcessPoolExecutor(min(num_workers, len(tasks)), initializer=_start_worker, initargs=(make,)) as pool:
            # only a few tasks are queued at a time, so that the first error ends the run early
            queued = {pool.submit(_make_in_worker, task) for task in islice(remaining, 2 * num_workers)}
            try:
                while queued:
                    done, queued = wait(queued, return_when=FIRST_COMPLETED)
                    finished = [future.result() for future in done]
                    queued |= {pool.submit(_make_in_worker, task) for task in islice(remaining, len(done))}
                    yield from finished
            except BrokenProcessPool:
                raise EnvironmentProblem(
                    "a worker process was killed, most often because the machine ran out of memory: run the same "
                    "command with fewer --workers; finished shards are kept"
                ) from None

    return run


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Search for cycles of objects rarely: rows have none, and the search takes a tenth of the time of `compile`."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


_make_of_worker: Make | None = None


def _start_worker(make: Make) -> None:
    """Keep what makes a shard, and exit when the parent is killed.

    An orphan must not wait forever or write into the files of the next run.
    """
    global _make_of_worker
    _make_of_worker = make
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _make_in_worker(task: Task) -> ShardCounts:
    assert _make_of_worker is not None, "the worker has started"
    return _make_of_worker(task)
