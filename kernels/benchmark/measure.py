"""Measures time, peak memory and accuracy of one implementation on one case, in a process of its own.

On CPU, time is the CPU time of that process, so other load on the machine does not change it; memory is the peak of the
resident set above the inputs (Linux only). On a GPU, times come from CUDA events, with the L2 cache flushed before each
repeat, and memory is the peak of the allocator. A gradient of the weight that autograd returns is added to `main_grad`
within the backward pass, because training needs it there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from acc_megatron.kernels.benchmark.child import ask, memory_status_bytes, serve
from acc_megatron.kernels.benchmark.costs import Case
from acc_megatron.kernels.benchmark.implementation import Loss
from acc_megatron.kernels.benchmark.inputs import Errors, errors, make_inputs
from acc_megatron.kernels.benchmark.machine import gpu_state
from acc_megatron.kernels.benchmark.registry import implementation

MODULE = "acc_megatron.kernels.benchmark.measure"
DIRECTIONS = ("forward", "backward", "both")
NUM_GPU_WARMUPS = 3
L2_FLUSH_BYTES = 256 * 1024**2
QUANTILES = (0.2, 0.5, 0.8)


class Seconds(NamedTuple):
    """Percentiles over the repeats, in seconds."""

    p20: float
    p50: float
    p80: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Times of both passes and of their sum, the peak memory in addition to the inputs, and the accuracy.

    `gpu_state` is the driver, clocks, power and temperature after the last repeat.
    """

    forward: Seconds
    backward: Seconds
    both: Seconds
    peak_bytes: int
    errors: Errors
    gpu_state: str = ""


def measure(name: str, case: Case, dtype: str, repeats: int) -> Measurement:
    """Measure on the GPU if there is one, otherwise on CPU. Raises DoesNotFit or EnvironmentProblem."""
    answer = ask(MODULE, {"name": name, "case": case, "dtype": dtype, "repeats": repeats})
    return Measurement(
        **{direction: Seconds(*answer[direction]) for direction in DIRECTIONS},
        peak_bytes=answer["peak_bytes"],
        errors=Errors(**answer["errors"]),
        gpu_state=answer["gpu_state"],
    )


def percentiles(values: Sequence[float]) -> Seconds:
    """The percentiles of the seconds of each repeat."""
    return Seconds(*torch.tensor(values, dtype=torch.float64).quantile(torch.tensor(QUANTILES).double()).tolist())


def cuda_event() -> torch.cuda.Event:
    """An event on the current stream that records the time."""
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


class _Marks(NamedTuple):
    """The clock before, between and after both passes."""

    start: Any
    middle: Any
    end: Any


def _run(loss: Loss, inputs: tuple[torch.Tensor, ...], clock: Callable[[], Any]) -> tuple[_Marks, torch.Tensor]:
    """Run both passes; the marks, and the loss. The gradient of the weight is added to `main_grad`."""
    hidden, weight, targets = inputs
    hidden.grad = None
    start = clock()
    value = loss(hidden, weight, targets)
    middle = clock()
    value.backward()
    if weight.grad is not None:
        weight.main_grad.add_(weight.grad)  # type: ignore[attr-defined]
        weight.grad = None
    return _Marks(start, middle, clock()), value.detach()


def _answer(name: str, case: Sequence[int], dtype: str, repeats: int) -> dict[str, Any]:
    here = Case(*case)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss = implementation(name).load(device)
    times, peak_bytes = (_on_gpu if device == "cuda" else _on_cpu)(loss, here, dtype, repeats)
    state = gpu_state() if device == "cuda" else ""
    both = [(forward + backward) for forward, backward in times]
    forward, backward = ([pair[i] for pair in times] for i in range(2))
    inputs = make_inputs(here, dtype, device)
    _, value = _run(loss, inputs, time.perf_counter)
    hidden, weight, _ = inputs
    assert hidden.grad is not None
    found = errors(value, hidden.grad, weight.main_grad, inputs)  # type: ignore[attr-defined]
    return asdict(
        Measurement(
            forward=percentiles(forward),
            backward=percentiles(backward),
            both=percentiles(both),
            peak_bytes=peak_bytes,
            errors=found,
            gpu_state=state,
        )
    )


def _on_cpu(loss: Loss, case: Case, dtype: str, repeats: int) -> tuple[list[tuple[float, float]], int]:
    """Seconds of (forward, backward) of each repeat, and the peak in bytes."""
    # libraries allocate memory on first use, which must not be counted for the implementation
    _run(loss, make_inputs(Case(64, 3, 128, case.hidden), dtype, "cpu"), time.process_time)
    inputs = make_inputs(case, dtype, "cpu")
    # writing 5 resets the peak
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_status_bytes("VmRSS")
    marks = [_run(loss, inputs, time.process_time)[0]]
    peak_bytes = memory_status_bytes("VmHWM") - before
    marks += [_run(loss, inputs, time.process_time)[0] for _ in range(repeats - 1)]
    return [(mark.middle - mark.start, mark.end - mark.middle) for mark in marks], peak_bytes


def _on_gpu(loss: Loss, case: Case, dtype: str, repeats: int) -> tuple[list[tuple[float, float]], int]:
    """Seconds of (forward, backward) of each repeat, and the peak in bytes."""
    inputs = make_inputs(case, dtype, "cuda")
    flush = torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(NUM_GPU_WARMUPS):
        _run(loss, inputs, cuda_event)
    inputs[0].grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    marks = []
    for _ in range(repeats):
        flush.zero_()
        marks.append(_run(loss, inputs, cuda_event)[0])
    torch.cuda.synchronize()
    peak_bytes = torch.cuda.max_memory_allocated() - before
    times = [(mark.start.elapsed_time(mark.middle), mark.middle.elapsed_time(mark.end)) for mark in marks]
    return [(forward / 1e3, backward / 1e3) for forward, backward in times], peak_bytes


if __name__ == "__main__":
    serve(_answer)
