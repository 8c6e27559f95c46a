"""Progress of a long conversion on stderr: one line rewritten on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from typing import TextIO

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.2


class Progress:
    """Counts finished shards, documents, tokens and drops, and says how fast they come and how long is left."""

    def __init__(self, verb: str, num_shards: int, stream: TextIO | None = None) -> None:
        self._verb, self._num_shards = verb, num_shards
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._shards = self._documents = self._tokens = self._dropped = 0

    def add(self, *, documents: int, tokens: int, dropped: int) -> None:
        """Count one finished shard, and show the line when its time has come."""
        self._shards += 1
        self._documents += documents
        self._tokens += tokens
        self._dropped += dropped
        now = time.monotonic()
        if now - self._shown >= (REDRAW_SECONDS if self._is_terminal else LINE_SECONDS):
            self._shown = now
            self._show(now, last=False)

    def finish(self) -> None:
        """Show the last line, unless no shard was counted."""
        if self._shards:
            self._show(time.monotonic(), last=True)

    def _show(self, now: float, *, last: bool) -> None:
        elapsed = max(now - self._start, 1e-9)
        left = "" if last else f", {_clock(elapsed * (self._num_shards - self._shards) / self._shards)} left"
        line = (
            f"{self._verb}: shard {self._shards:,} of {self._num_shards:,}, {self._documents:,} documents, "
            f"{self._tokens:,} tokens, {self._tokens / elapsed:,.0f} tokens/s, {self._dropped:,} dropped, "
            f"{_clock(elapsed)}{left}"
        )
        rewritten = self._is_terminal and not last
        print(f"\r\x1b[2K{line}" if self._is_terminal else line, end="" if rewritten else "\n", file=self._stream)
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
