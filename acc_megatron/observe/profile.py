"""Records chosen steps on chosen ranks: a torch profiler trace, NVTX ranges for nsys, a snapshot of the CUDA memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch

from acc_megatron.config import ProfileConfig

MEMORY_EVENTS = 200_000  # the newest allocations and frees that a snapshot contains


class Ranges(Protocol):
    """Told when a section of the step begins and ends."""

    def begin(self, section: str) -> None:
        """A section begins."""

    def end(self, section: str) -> None:
        """The section ends."""


class Sections(Protocol):
    """What measures the sections; see training/section_times.py."""

    ranges: Ranges | None


class StepProfiler:
    """Records the chosen steps into `folder`; any other step only looks up its number.

    `sections` gets the ranges of the recorded steps, `writing` is called with the step before its files are written.
    """

    def __init__(
        self,
        settings: ProfileConfig,
        folder: Path,
        rank: int,
        sections: Sections,
        writing: Callable[[int], None],
    ) -> None:
        self._settings, self._folder, self._rank = settings, folder, rank
        self._sections, self._writing = sections, writing
        self._steps = frozenset(settings.steps if rank in settings.ranks else ())

    def step(self, number: int) -> AbstractContextManager[None]:
        """Record this step if it was chosen; the files are written when the block ends, also by an error."""
        return self._recorded(number) if number in self._steps else nullcontext()

    @contextmanager
    def _recorded(self, number: int) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{number:08d}_rank_{self._rank:05d}"
        with ExitStack() as stack:
            if self._settings.memory:
                stack.enter_context(_memory_snapshot(self._folder / f"{name}.pickle"))
            if self._settings.nvtx:
                # nsys --capture-range=cudaProfilerApi waits for this
                stack.enter_context(torch.cuda.profiler.profile())
            if self._settings.trace:
                stack.enter_context(_trace(self._folder / f"{name}.json.gz"))
            self._sections.ranges = _ProfilerRanges(with_nvtx=self._settings.nvtx)
            try:
                yield
            finally:
                self._sections.ranges = None
                self._writing(number)


class _ProfilerRanges:
    """Names the sections in the trace, and in nsys."""

    def __init__(self, *, with_nvtx: bool) -> None:
        self._with_nvtx = with_nvtx
        self._open: dict[str, tuple[Any, Any]] = {}

    def begin(self, section: str) -> None:
        range_id = torch.cuda.nvtx.range_start(section) if self._with_nvtx else None
        recorded = torch.profiler.record_function(section)
        recorded.__enter__()
        self._open[section] = (recorded, range_id)

    def end(self, section: str) -> None:
        recorded, range_id = self._open.pop(section)
        recorded.__exit__(None, None, None)
        if self._with_nvtx:
            torch.cuda.nvtx.range_end(range_id)


@contextmanager
def _trace(path: Path) -> Iterator[None]:
    """Write a Chrome trace of the block to `path`."""
    profiler = torch.profiler.profile(activities=torch.profiler.supported_activities(), record_shapes=True)
    with profiler:
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    temporary = path.with_name(f".{path.name}")  # the end of the name makes torch compress it
    profiler.export_chrome_trace(str(temporary))
    temporary.replace(path)


@contextmanager
def _memory_snapshot(path: Path) -> Iterator[None]:
    """Write the allocations of the block, with their stacks, to `path`, for pytorch.org/memory_viz."""
    torch.cuda.memory._record_memory_history(max_entries=MEMORY_EVENTS)
    try:
        yield
    finally:
        temporary = path.with_name(f".{path.name}")
        torch.cuda.memory._dump_snapshot(str(temporary))
        torch.cuda.memory._record_memory_history(enabled=None)
        temporary.replace(path)
