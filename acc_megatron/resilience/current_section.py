"""The section of a step that a process is in, timed on a monotonic clock."""

import time
from dataclasses import dataclass, field

UNTIMED = frozenset({"start", "checkpoint", "profile", "end"})  # depend on disk and network, so they have no time limit
WARMUP_STEPS = 5  # the first steps compile kernels and open connections


@dataclass(frozen=True, slots=True)
class Place:
    """A section of a step; `number` counts the sections entered since the start, on every rank in the same order."""

    number: int
    section: str
    step: int
    since: float = field(default_factory=time.monotonic)


class Progress:
    """The current section, set by the main thread and read by the watchdog.

    One assignment replaces it, so no lock is needed.
    """

    def __init__(self) -> None:
        self.now = Place(0, "start", 0)
        self.slowest_seconds = 0.0  # of the timed sections after the warm-up
        self._first_step: int | None = None

    def enter(self, section: str, step: int) -> None:
        """Leave the current section and enter `section` of step number `step`."""
        before, self.now = self.now, Place(self.now.number + 1, section, step)
        if self._first_step is None and section not in UNTIMED:
            self._first_step = step
        if self.is_timed(before):
            self.slowest_seconds = max(self.slowest_seconds, self.now.since - before.since)

    def is_timed(self, place: Place) -> bool:
        """Whether the section has a time limit: not while writing files, and not before the warm-up is over."""
        warm = self._first_step is not None and place.step >= self._first_step + WARMUP_STEPS
        return warm and place.section not in UNTIMED
