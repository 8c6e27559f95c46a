"""Time and peak memory of one implementation on one case. On CPU each measurement has a process of its own.

CPU time is that of the process, not of the clock: it says the same on a busy machine. CPU memory is the peak of the
resident set above what stands before; Linux counts it. On a GPU: events, L2 flushed between runs, the allocator's peak.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.kernels.costs import Case
from acc_megatron.kernels.implementations import Loss, implementations

DIRECTIONS = ("forward", "backward", "both")
L2_FLUSH_BYTES = 256 * 1024**2


def measure(name: str, case: Case, dtype: str, repeats: int) -> dict[str, Any]:
    """`{direction: [p20, p50, p80] seconds}` and `peak_bytes`, on the GPU where there is one, else in a new process."""
    if torch.cuda.is_available():
        return _on_gpu(name, case, dtype, repeats)
    request = json.dumps({"name": name, "case": case, "dtype": dtype, "repeats": repeats})
    done = subprocess.run(
        [sys.executable, "-m", "acc_megatron.kernels.measure", request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EnvironmentProblem(f"{name} could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def inputs(case: Case, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random hidden, weight with a float32 `main_grad`, and targets: the last rows are supervised, as an answer is."""
    generator = torch.Generator(device).manual_seed(0)
    kind = getattr(torch, dtype)
    hidden = torch.randn(case.tokens, case.hidden, generator=generator, device=device).to(kind).requires_grad_()
    weight = torch.randn(case.vocab, case.hidden, generator=generator, device=device).mul_(case.hidden**-0.5).to(kind)
    # filled, not zeros: it exists anyway, and its pages must not count as the implementation's
    weight.requires_grad_().main_grad = torch.full(weight.shape, 0.0, device=device)  # type: ignore[attr-defined]
    targets = torch.randint(0, case.vocab, (case.tokens,), generator=generator, device=device)
    targets[: case.tokens - case.supervised] = -100
    return hidden, weight, targets


def _run(loss: Loss, tensors: tuple[torch.Tensor, ...], clock: Callable[[], Any]) -> tuple[Any, Any, Any]:
    hidden, weight, targets = tensors
    start = clock()
    value = loss(hidden, weight, targets)
    middle = clock()
    value.backward()
    end = clock()
    hidden.grad = weight.grad = None
    return start, middle, end


def _on_cpu(name: str, case: Case, dtype: str, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    loss = implementations("cpu")[name]
    # libraries allocate on first use: not the implementation's memory
    _run(loss, inputs(Case(64, 3, 128, case.hidden), dtype, "cpu"), time.process_time)
    tensors = inputs(case, dtype, "cpu")
    # writing 5 resets the peak
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    times = [_run(loss, tensors, time.process_time)]
    peak = _status_bytes("VmHWM") - before
    times += [_run(loss, tensors, time.process_time) for _ in range(repeats - 1)]
    return {"peak_bytes": peak} | _percentiles([(middle - start, end - middle) for start, middle, end in times])


def _on_gpu(name: str, case: Case, dtype: str, repeats: int) -> dict[str, Any]:
    loss = implementations("cuda")[name]
    tensors = inputs(case, dtype, "cuda")
    flush = torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def event() -> torch.cuda.Event:
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    for _ in range(3):
        _run(loss, tensors, event)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    marks = []
    for _ in range(repeats):
        flush.zero_()
        marks.append(_run(loss, tensors, event))
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    pairs = [(a.elapsed_time(b) / 1e3, b.elapsed_time(c) / 1e3) for a, b, c in marks]
    return {"peak_bytes": peak} | _percentiles(pairs)


def _percentiles(pairs: list[tuple[float, float]]) -> dict[str, list[float]]:
    values = torch.tensor([(forward, backward, forward + backward) for forward, backward in pairs], dtype=torch.float64)
    quantiles = values.quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64), dim=0)
    return dict(zip(DIRECTIONS, quantiles.T.tolist(), strict=True))


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise EnvironmentProblem(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(_on_cpu(asked["name"], Case(*asked["case"]), asked["dtype"], asked["repeats"])))
