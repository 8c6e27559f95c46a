"""Bytes that torch has allocated, now and at the peak of a call: from CUDA's allocator, or on CPU from the profiler.

On CPU the profiler reports every allocation, including temporaries inside operations. Resident memory is not exact: it
includes the interpreter, libraries, and memory that the C library does not return.
"""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def count_every_allocation() -> None:
    """Make torch's CPU allocator count from now on; otherwise it counts while a profiler runs only."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage").value = True


def allocated_bytes() -> int:
    """Return the bytes allocated now."""
    gc.collect()
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        probe = torch.empty(1, dtype=torch.uint8)
    return _cpu_totals(profiler)[0] - probe.nbytes


def peak_bytes(action: Callable[[], object]) -> int:
    """Return the largest number of bytes allocated at once while `action` runs."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    return max(_cpu_totals(profiler))


def _cpu_totals(profiler: Any) -> list[int]:
    """Allocated bytes after each call of the allocator."""
    from torch._C._profiler import _EventType

    found: list[tuple[int, int]] = []
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        if event.tag == _EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.total_allocated))
        waiting += event.children
    return [total for _, total in sorted(found, key=lambda item: item[0])]
