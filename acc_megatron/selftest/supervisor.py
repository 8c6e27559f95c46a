"""Starts the workers of this process's ranks, gives each check a time limit, and agrees with the other supervisors.

A check that fails, hangs or crashes on any rank ends on all ranks, and the next check starts in new processes.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from acc_megatron.errors import JobFailed
from acc_megatron.selftest.check import Check, Outcome, Result, combine
from acc_megatron.selftest.place import rank_environment
from acc_megatron.selftest.worker import Job, outcome_file

if TYPE_CHECKING:
    import torch.distributed as dist

COMMAND = (sys.executable, "-m", "acc_megatron.selftest.worker")
START_SECONDS = 180  # for importing torch and Megatron, which the first check of a process waits for
GRACE_SECONDS = 5  # in which the other ranks may end a check that failed on one
POLL_SECONDS = 0.05


@dataclass
class _Worker:
    """The running process of one rank."""

    rank: int
    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, number: int, name: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{number} {name}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which `ended` reports

    def ended(self) -> str | None:
        """Return how the process ended and the end of its log; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["(empty log)"]
        return f"the process ended with {how}: {lines[-1][:300]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Supervisor:
    """Runs checks on some ranks of the job. Every rank belongs to one supervisor, and all see the same `store`.

    `first` is the job of the first of these ranks; the others are on the same machine and follow it.
    """

    def __init__(self, first: Job, num_ranks: int, store: "dist.Store", command: Sequence[str] = COMMAND) -> None:
        self._first, self._num_ranks, self._store, self._command = first, num_ranks, store, command
        self._folder = Path(first.folder)
        self._workers: list[_Worker] = []
        self._num_starts = 0

    def run(self, checks: Sequence[Check]) -> Iterator[Result]:
        """Yield the result of each check, which is the same in every supervisor. Raises JobFailed if one is gone."""
        try:
            for number, check in enumerate(checks):
                started = time.monotonic()
                limit = check.limit_seconds
                if not self._workers:
                    self._start()
                    limit += START_SECONDS
                for worker in self._workers:
                    worker.ask(number, check.name)
                self._watch(number, limit)
                outcomes = self._all_outcomes(number, check, limit)
                result = combine(check, outcomes, time.monotonic() - started)
                if result.state == "FAIL":
                    self._stop()
                yield result
        finally:
            self._stop()

    def _start(self) -> None:
        self._num_starts += 1
        for offset in range(self._num_ranks):
            job = replace(
                self._first,
                rank=self._first.rank + offset,
                local_rank=self._first.local_rank + offset,
                store_prefix=f"{self._first.store_prefix}/{self._num_starts}",
            )
            log = self._folder / "logs" / f"rank_{job.rank:05d}.log"
            log.parent.mkdir(exist_ok=True)
            with log.open("a") as output:
                process = subprocess.Popen(
                    [*self._command, json.dumps(asdict(job))], stdin=subprocess.PIPE, stdout=output, stderr=output,
                    text=True, env=rank_environment(job.rank, job.world, job.local_rank, job.store_host),
                )  # fmt: skip
            self._workers.append(_Worker(job.rank, process, log))

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _watch(self, number: int, limit: float) -> None:
        """Publish the outcome of every own rank: reported by it, or found from outside."""
        waiting, until, failed_at = list(self._workers), time.monotonic() + limit, None
        failed_key = f"{number}/failed"
        while waiting:
            time.sleep(POLL_SECONDS)
            if failed_at is None and self._store.check([failed_key]):
                failed_at = time.monotonic()
            for worker in list(waiting):
                outcome = self._outcome(worker, number)
                if outcome is None and time.monotonic() > until:
                    outcome = Outcome(state="FAIL", text=f"did not end within {limit:.0f} s", cause="time limit")
                if outcome is None and failed_at is not None and time.monotonic() > failed_at + GRACE_SECONDS:
                    outcome = Outcome(state="FAIL", text="stopped because another rank failed", cause="stopped")
                if outcome is not None:
                    waiting.remove(worker)
                    self._store.set(f"{number}/{worker.rank}", json.dumps(asdict(outcome)))
                    if outcome.state == "FAIL":
                        self._store.set(failed_key, "")

    def _outcome(self, worker: _Worker, number: int) -> Outcome | None:
        ended = worker.ended()  # before the file is read: a process may write its outcome and then end
        path = outcome_file(self._folder, number, worker.rank)
        if path.is_file():
            return Outcome(**json.loads(path.read_bytes()))
        return Outcome(state="FAIL", text=ended, cause="process ended") if ended else None

    def _all_outcomes(self, number: int, check: Check, limit: float) -> list[Outcome]:
        """Wait for the outcomes of all ranks, in rank order."""
        keys = [f"{number}/{rank}" for rank in range(self._first.world)]
        until = time.monotonic() + limit + 2 * GRACE_SECONDS
        while not self._store.check(keys):
            if time.monotonic() > until:
                missing = next(rank for rank, key in enumerate(keys) if not self._store.check([key]))
                raise JobFailed(
                    f"rank {missing} did not answer within {limit:.0f} s of check {check.name}: its node or its "
                    "launcher ended, so the checks after it did not run; drain that node and start again"
                )
            time.sleep(POLL_SECONDS)
        return [Outcome(**json.loads(self._store.get(key))) for key in keys]
