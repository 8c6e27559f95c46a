"""A clean stop: after a signal or a stop file the run saves and ends at the end of the current step."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from acc_megatron.common.live_line import erase_live_line
from acc_megatron.mesh.torchrun_environment import is_rank_zero, say

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOP_FILE = "stop"
FILE_CAUSE = -1  # the cause of a stop by file; other causes are signal numbers
SAME_SIGNAL_SECONDS = 2.0  # a launcher forwards signals that its processes have already received


class StopRequest:
    """Records signals and the file `RUN/stop`; a second signal ends the process at once with 128 + its number.

    A thread reads signals from Python's wakeup pipe, because a signal handler runs only after the main thread returns
    from a collective, and a second signal is needed most when it does not. Every rank records its own signals; the
    ranks exchange them at the end of each step.
    """

    def __init__(self, run_dir: Path) -> None:
        self.cause = 0  # 0 for none, a signal number, or FILE_CAUSE
        self._file = run_dir / STOP_FILE
        self._checks_file = int(os.environ.get("LOCAL_RANK", 0)) == 0  # one process per node

    def poll(self) -> int:
        """Return the cause, or 0; checks for the stop file if there was no signal."""
        if not self.cause and self._checks_file and self._file.exists():
            self.cause = FILE_CAUSE
        return self.cause

    def clear_file(self) -> None:
        """Remove the stop file after the stop, or before a start; called on rank 0 only."""
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        if is_rank_zero() and self._file.exists():
            say(f"removed {self._file}, which was created before this start")
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
            erase_live_line()
            name, rank = signal.Signals(number).name, os.environ.get("RANK", "0")
            if self.cause <= 0:
                self.cause, first = number, time.monotonic()
                print(
                    f"rank {rank}: {name}: saving after this step; a second signal ends the run at once",
                    file=sys.stderr,
                )
            elif time.monotonic() - first > SAME_SIGNAL_SECONDS:
                print(f"rank {rank}: {name} again: ending at once, without saving", file=sys.stderr, flush=True)
                os._exit(128 + number)


def cause_name(cause: int) -> str:
    """The name of a cause."""
    return "the stop file" if cause == FILE_CAUSE else signal.Signals(cause).name
