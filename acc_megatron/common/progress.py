"""Progress of a run over documents on stderr: share done and time left first, then counts and rate."""

import time
from collections.abc import Callable
from typing import Literal, TextIO

from acc_megatron.common.live_line import LiveLine, clock


class Progress:
    """Counts documents, tokens and drops; shows them with the share that is done, the time left and the rate.

    `total` is the amount of work, in shards or in bytes of input; `note` gives a text for the end of the line.
    """

    def __init__(
        self,
        verb: str,
        total: int,
        stream: TextIO | None = None,
        *,
        unit: Literal["shards", "bytes"] = "shards",
        note: Callable[[], str] | None = None,
    ) -> None:
        self._note = note
        self._verb, self._total, self._unit = verb, total, unit
        self._line = LiveLine(stream)
        self._start = time.monotonic()
        self._done = self._documents = self._tokens = self._dropped = 0

    def reach(self, done: int) -> None:
        """Set how much of the total is done."""
        self._done = done

    def add(self, *, documents: int = 0, tokens: int = 0, dropped: int = 0) -> None:
        """Add to the counts, and show the line if it is due."""
        self._documents += documents
        self._tokens += tokens
        self._dropped += dropped
        if self._line.is_due():
            self._line.show(f"{self._verb}: {self._share()}{self._left()}, {self._counts()}")

    def finish(self) -> None:
        """Show the last line, unless nothing was counted."""
        if self._documents or self._dropped:
            self._line.keep(f"{self._verb}: {self._share()} in {clock(self._elapsed())}, {self._counts()}")

    def _elapsed(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)

    def _share(self) -> str:
        if self._unit == "shards":
            return f"shard {self._done:,} of {self._total:,}"
        return f"{self._done / max(1, self._total):.0%} of {self._total / 1e6:,.1f} MB"

    def _left(self) -> str:
        if not self._done:
            return ""
        return f", {clock(self._elapsed() * (self._total - self._done) / self._done)} left"

    def _counts(self) -> str:
        note = f", {self._note()}" if self._note else ""
        return (
            f"{self._documents:,} documents, {self._tokens:,} tokens, {self._tokens / self._elapsed():,.0f} tokens/s, "
            f"{self._dropped:,} dropped{note}"
        )
