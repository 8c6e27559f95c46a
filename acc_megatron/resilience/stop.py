"""A clean stop: a signal or a stop file is noted at once, and the run saves and ends at the next step boundary."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from acc_megatron.ranks import is_rank_zero, say

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOP_FILE = "stop"
FILE_CAUSE = -1  # the cause's number where it is no signal
SAME_SIGNAL_SECONDS = 2.0  # a launcher forwards to its processes what they have received already


class StopRequest:
    """Notes signals and the file `RUN/stop`; a second signal ends the process at once with 128 + its number.

    Signals are read from Python's wakeup pipe by a thread of their own: a handler proper would wait until the main
    thread comes back from a collective, which is when a second signal is needed most. Every rank notes its own;
    the ranks agree at the end of a step.
    """

    def __init__(self, run_dir: Path) -> None:
        self.cause = 0  # 0 none, a signal's number, or FILE_CAUSE
        self._file = run_dir / STOP_FILE
        self._looks = int(os.environ.get("LOCAL_RANK", 0)) == 0  # one process a node

    def poll(self) -> int:
        """The cause so far; looks for the file when no signal came."""
        if not self.cause and self._looks and self._file.exists():
            self.cause = FILE_CAUSE
        return self.cause

    def clear_file(self) -> None:
        """Remove the stop file: it is obeyed, or it is older than this run; rank 0 alone calls it."""
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        if is_rank_zero() and self._file.exists():
            say(f"removed {self._file}, which is older than this start")
            self.clear_file()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.write(self._write_end, b"\0")
        self._thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    def _listen(self) -> None:
        first = 0.0
        while (number := os.read(self._read_end, 1)[0]) != 0:
            if number not in SIGNALS:
                continue
            name, rank = signal.Signals(number).name, os.environ.get("RANK", "0")
            if self.cause <= 0:
                self.cause, first = number, time.monotonic()
                print(f"rank {rank}: {name}: saving after this step; a second one ends at once", file=sys.stderr)
            elif time.monotonic() - first > SAME_SIGNAL_SECONDS:
                print(f"rank {rank}: {name} again: ending at once, nothing saved", file=sys.stderr, flush=True)
                os._exit(128 + number)


def cause_name(cause: int) -> str:
    """A cause as a reader knows it."""
    return "the stop file" if cause == FILE_CAUSE else signal.Signals(cause).name
