"""A thread that detects a hang, writes the stacks of all ranks, names the rank that blocks the others, and ends all."""

import faulthandler
import json
import linecache
import os
import re
import sys
import threading
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import torch
import torch.distributed as dist

from acc_megatron.config import ResilienceConfig
from acc_megatron.mesh.torchrun_environment import say
from acc_megatron.resilience.current_section import Progress
from acc_megatron.resilience.hang_diagnosis import Answer, blame

EXIT_CODE = 23
MIN_TIMEOUT_SECONDS = 120.0
TIMEOUT_FACTOR = 5.0  # over the slowest section observed, as in nvidia-resiliency-ext
ANNOUNCED = "announced"
READS = re.compile(r"(\.(item|tolist|cpu|numpy)\(\)|\.to\([^()]*\)|^(float|int|bool)\(.*\))$", re.DOTALL)


class Watchdog:
    """Ends this process with exit code 23 when a section exceeds the time-out on any rank.

    Stacks are written to `RUN/stacks/rank_NNNNN.txt`. The ranks exchange their positions through a separate connection
    to torch.distributed's store. A process whose interpreter is blocked cannot answer: the timer of faulthandler, which
    needs no interpreter, writes its stacks, and the other ranks report that it did not answer.
    """

    def __init__(self, run_dir: Path, settings: ResilienceConfig, progress: Progress) -> None:
        self._folder = run_dir / "stacks"
        self._timeout = settings.hang_timeout_seconds
        self._progress = progress
        self._ending = threading.Event()
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._main = threading.main_thread().ident

    @property
    def limit_seconds(self) -> float:
        """The current time-out of a section."""
        learned = max(MIN_TIMEOUT_SECONDS, TIMEOUT_FACTOR * self._progress.slowest_seconds)
        return learned if self._timeout is None else self._timeout

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = (self._folder / f"rank_{self._rank:05d}.txt").open("w", encoding="utf-8")
        self._store: dist.Store | None = None
        if self._world > 1:
            store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
            self._store = dist.PrefixStore("hang", store)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        path = Path(self._file.name)
        if not path.stat().st_size:
            path.unlink()

    def _watch(self) -> None:
        while not self._ending.wait(min(5.0, self.limit_seconds / 20)):
            place, limit = self._progress.now, self.limit_seconds
            timed = self._progress.is_timed(place)
            if (timed and time.monotonic() - place.since > limit) or self._is_announced():
                self._end_hang(limit)
            if timed:  # expires only if this thread is blocked too
                faulthandler.dump_traceback_later(2 * limit + 5, exit=True, file=self._file)
            else:
                faulthandler.cancel_dump_traceback_later()

    def _is_announced(self) -> bool:
        try:
            return self._store is not None and self._store.check([ANNOUNCED])
        except (RuntimeError, ValueError):
            return False  # the store ended with its rank, whose watchdog or launcher reports the reason

    def _end_hang(self, limit: float) -> None:
        faulthandler.cancel_dump_traceback_later()
        own = Answer(**asdict(self._progress.now), waits_for_others=self._waits_for_others())
        self._file.write(f"rank {self._rank}: {own.describe(time.monotonic())}\n")
        self._file.flush()
        faulthandler.dump_traceback(file=self._file)
        os.fsync(self._file.fileno())
        answers = self._exchange(own, grace=max(1.0, min(10.0, limit / 2)))
        if self._rank == min(answers):
            verdict = blame(answers, self._world)
            print(
                f"error: no progress for {limit:.0f} s: {verdict}. The stacks of every rank are in {self._folder}. "
                "Run the same command again to resume from the last checkpoint",
                file=sys.stderr,
                flush=True,
            )
        os._exit(EXIT_CODE)

    def _exchange(self, own: Answer, grace: float) -> dict[int, Answer]:
        """The positions of all ranks that answer within `grace` seconds, this rank included."""
        answers = {self._rank: own}
        if self._store is None:
            return answers
        until = time.monotonic() + grace
        try:
            self._store.set(str(self._rank), json.dumps(asdict(own)))
            self._store.set(ANNOUNCED, "1")
            missing = set(range(self._world)) - set(answers)
            while missing and time.monotonic() < until:
                for rank in [rank for rank in missing if self._store.check([str(rank)])]:
                    answers[rank] = Answer(**json.loads(self._store.get(str(rank))))
                    missing.remove(rank)
                time.sleep(0.05)
            # rank 0 usually hosts the store, so it ends after the others have read their answers
            time.sleep(1.0 if self._rank == 0 else 0.0)
        except (RuntimeError, ValueError) as error:
            say(f"the ranks could not exchange their positions: {error}")
        return answers

    def _waits_for_others(self) -> bool:
        """Whether any thread except this one is inside a collective."""
        own = {threading.get_ident()}
        return any(is_in_collective(frame) for ident, frame in sys._current_frames().items() if ident not in own)


def is_in_collective(frame: FrameType | None) -> bool:
    """Whether a stack is inside torch.distributed, or waits for a device, which may wait for the other ranks."""
    if frame is not None and reads_from_device(frame):
        return True
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/distributed/" in name and "/elastic/" not in name:
            return True
        if "/torch/cuda/" in name and frame.f_code.co_name == "synchronize":
            return True
        frame = frame.f_back
    return False


def reads_from_device(frame: FrameType) -> bool:
    """Whether the innermost call of a stack is one of torch's methods that copy a value from the device, as `.item()`.

    Such a method is in C and has no frame, so the source text of the current instruction is read.
    """
    if not torch.cuda.is_available():
        return False
    first, last, start, end = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    if first is None or last is None:
        return False
    lines = [linecache.getline(frame.f_code.co_filename, number) for number in range(first, last + 1)]
    called = "".join([*lines[:-1], lines[-1].encode()[:end].decode(errors="replace")])[start or 0 :]
    return bool(READS.search(called))
