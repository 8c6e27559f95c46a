"""Where a process is in its run: the section it entered last, on a clock that cannot jump."""

import time
from dataclasses import dataclass, field

UNTIMED = frozenset({"start", "checkpoint", "end"})  # as long as the disk or the network needs
WARMUP_STEPS = 5  # the first steps of a process compile kernels and open connections


@dataclass(frozen=True, slots=True)
class Place:
    """A section of a step; `number` counts sections since the start, so the lowest is the one furthest behind."""

    number: int
    section: str
    step: int
    since: float = field(default_factory=time.monotonic)


class Progress:
    """The main thread enters sections; the watchdog reads where it is. Replaced whole, so no lock is needed."""

    def __init__(self) -> None:
        self.now = Place(0, "start", 0)
        self.slowest_seconds = 0.0  # of the timed sections after the warm-up
        self._first_step: int | None = None

    def enter(self, section: str, step: int) -> None:
        """Leave the current section for `section` of step number `step`."""
        before, self.now = self.now, Place(self.now.number + 1, section, step)
        if self._first_step is None and section not in UNTIMED:
            self._first_step = step
        if self.is_timed(before):
            self.slowest_seconds = max(self.slowest_seconds, self.now.since - before.since)

    def is_timed(self, place: Place) -> bool:
        """Whether a hang can be told there: not while saving, and not before the process has warmed up."""
        warm = self._first_step is not None and place.step >= self._first_step + WARMUP_STEPS
        return warm and place.section not in UNTIMED
