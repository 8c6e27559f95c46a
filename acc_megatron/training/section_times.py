"""Time of the sections of a step on this rank, measured through Megatron's timer calls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acc_megatron.observe.profile import Ranges

SECTIONS = ("data", "forward", "backward", "reduction", "optimizer", "save")
# the names under which Megatron's schedules and gradient reductions start a timer
_MEGATRON_NAMES = {
    "forward-compute": "forward",
    "backward-compute": "backward",
    "all-grads-sync": "reduction",
    "non-tensor-parallel-grads-all-reduce": "reduction",
    "embedding-grads-all-reduce": "reduction",
}


class SectionTimes:
    """Seconds of each section since the last `take`; an object for `TransformerConfig.timers`.

    On GPUs the times are those of CUDA events on the current stream, so measuring never waits for the device.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(SECTIONS, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._timers: dict[str, _Timer] = {}
        self._uses_events = torch.cuda.is_available()
        self.ranges: Ranges | None = None  # also told of every section, while a step is profiled

    def __call__(self, name: str, log_level: int = 2) -> "_Timer":
        """Return the timer that Megatron starts and stops; sections that are not listed are not measured."""
        return self._timers.setdefault(name, _Timer(self, _MEGATRON_NAMES.get(name)))

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Measure a section of our own code on the wall clock."""
        started = time.perf_counter()
        if self.ranges is not None:
            self.ranges.begin(name)
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started
            if self.ranges is not None:
                self.ranges.end(name)

    def take(self) -> dict[str, float]:
        """Return the seconds of each section since the last call; waits for the device's events."""
        for name, start, end in self._events:
            end.synchronize()
            self._seconds[name] += start.elapsed_time(end) / 1e3
        self._events.clear()
        taken, self._seconds = self._seconds, dict.fromkeys(SECTIONS, 0.0)
        return taken

    def _mark(self) -> "float | torch.cuda.Event":
        if not self._uses_events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add(self, section: str, start: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> None:
        if isinstance(start, float) and isinstance(end, float):
            self._seconds[section] += end - start
        elif isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            self._events.append((section, start, end))


class _Timer:
    """One of Megatron's timers: `start(barrier=...)`, then `stop()`."""

    def __init__(self, times: SectionTimes, section: str | None) -> None:
        self._times, self._section = times, section
        self._start: float | torch.cuda.Event | None = None

    def start(self, barrier: bool = False) -> None:
        """Begin; `barrier` is ignored, because a barrier would change the times that are measured."""
        if self._section is not None:
            self._start = self._times._mark()
            if self._times.ranges is not None:
                self._times.ranges.begin(self._section)

    def stop(self, barrier: bool = False) -> None:
        """End, and add the time to the section."""
        if self._section is not None and self._start is not None:
            self._times._add(self._section, self._start, self._times._mark())
            self._start = None
            if self._times.ranges is not None:
                self._times.ranges.end(self._section)
