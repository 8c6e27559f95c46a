"""A thread that tells a hang: every rank's stacks go to disk, the rank that holds the others up is named, all end."""

import faulthandler
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import torch.distributed as dist

from acc_megatron.config import ResilienceConfig
from acc_megatron.ranks import say
from acc_megatron.resilience.culprit import Answer, blame
from acc_megatron.resilience.progress import Progress

EXIT_CODE = 23
LEAST_SECONDS, TIMES_SLOWEST = 120.0, 5.0  # the learned time-out, as nvidia-resiliency-ext's: observed x 5
ANNOUNCED = "announced"


class Watchdog:
    """Watches this process's progress; ends it with exit code 23 when a section outlives the time-out on any rank.

    Stacks go to `RUN/stacks/rank_NNNNN.txt`. Ranks tell each other where they are through a connection of their own
    to torch.distributed's store. A process whose interpreter is stuck cannot answer: faulthandler's own timer, which
    needs no interpreter, then writes its stacks, and the others name it as the one that is silent.
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
        """The time-out of a section now."""
        learned = max(LEAST_SECONDS, TIMES_SLOWEST * self._progress.slowest_seconds)
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
            if timed:  # fires when this thread does not come back here in time
                faulthandler.dump_traceback_later(2 * limit + 5, exit=True, file=self._file)
            else:
                faulthandler.cancel_dump_traceback_later()

    def _is_announced(self) -> bool:
        try:
            return self._store is not None and self._store.check([ANNOUNCED])
        except (RuntimeError, ValueError):
            return False  # the store is gone with the rank that held it; its own watchdog or launcher says why

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
                f"error: no progress for {limit:.0f} s: {verdict}. Stacks of every rank are in {self._folder}; "
                "start the same command again to go on from the last checkpoint",
                file=sys.stderr,
                flush=True,
            )
        os._exit(EXIT_CODE)

    def _exchange(self, own: Answer, grace: float) -> dict[int, Answer]:
        """Where every rank is that answers within `grace` seconds; this one is always among them."""
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
            # rank 0 may hold the store: it goes last, when the others have read
            time.sleep(1.0 if self._rank == 0 else 0.0)
        except (RuntimeError, ValueError) as error:
            say(f"the ranks could not tell each other where they are: {error}")
        return answers

    def _waits_for_others(self) -> bool:
        """Whether any thread of the program stands inside a collective."""
        own = {threading.get_ident()}
        return any(stands_in_collective(frame) for ident, frame in sys._current_frames().items() if ident not in own)


def stands_in_collective(frame: FrameType | None) -> bool:
    """Whether a stack leads through torch.distributed or waits for a device, which waits for the other ranks."""
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/distributed/" in name and "/elastic/" not in name:
            return True
        if "/torch/cuda/" in name and frame.f_code.co_name == "synchronize":
            return True
        frame = frame.f_back
    return False
