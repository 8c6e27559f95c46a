"""Progress of a long run on stderr: one line rewritten on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from typing import Literal, TextIO

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.2


class Progress:
    """Counts documents, tokens and drops, and says how far the run is, how fast they come and how long is left.

    `total` is what there is to do, in shards or in bytes of input.
    """

    def __init__(
        self, verb: str, total: int, stream: TextIO | None = None, *, unit: Literal["shards", "bytes"] = "shards"
    ) -> None:
        self._verb, self._total, self._unit = verb, total, unit
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._done = self._documents = self._tokens = self._dropped = 0

    def reach(self, done: int) -> None:
        """Say that so much of the total is done."""
        self._done = done

    def add(self, *, documents: int = 0, tokens: int = 0, dropped: int = 0) -> None:
        """Count what came out, and show the line when its time has come."""
        self._documents += documents
        self._tokens += tokens
        self._dropped += dropped
        now = time.monotonic()
        if now - self._shown >= (REDRAW_SECONDS if self._is_terminal else LINE_SECONDS):
            self._shown = now
            self._show(now, last=False)

    def finish(self) -> None:
        """Show the last line, unless nothing was counted."""
        if self._documents or self._dropped:
            self._show(time.monotonic(), last=True)

    def _show(self, now: float, *, last: bool) -> None:
        elapsed = max(now - self._start, 1e-9)
        left = f", {_clock(elapsed * (self._total - self._done) / self._done)} left" if self._done and not last else ""
        line = (
            f"{self._verb}: {self._place()}, {self._documents:,} documents, "
            f"{self._tokens:,} tokens, {self._tokens / elapsed:,.0f} tokens/s, {self._dropped:,} dropped, "
            f"{_clock(elapsed)}{left}"
        )
        rewritten = self._is_terminal and not last
        print(f"\r\x1b[2K{line}" if self._is_terminal else line, end="" if rewritten else "\n", file=self._stream)
        self._stream.flush()

    def _place(self) -> str:
        if self._unit == "shards":
            return f"shard {self._done:,} of {self._total:,}"
        return f"{self._done / max(1, self._total):.0%} of {self._total / 1e6:,.1f} MB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
