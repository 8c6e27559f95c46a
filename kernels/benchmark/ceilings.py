"""Measures what this device reaches: a large matrix product and a large copy, in a process of its own."""

import time
from typing import Any

import torch

from acc_megatron.kernels.benchmark.child import ask, serve
from acc_megatron.kernels.benchmark.costs import Ceiling
from acc_megatron.kernels.benchmark.measure import cuda_event

MODULE = "acc_megatron.kernels.benchmark.ceilings"
SIZES = {"cpu": (1024, 2**26), "cuda": (8192, 2**30)}  # rows of a square product, bytes of a copy
NUM_REPEATS = {"cpu": 5, "cuda": 20}


def measure_ceiling(dtype: str) -> Ceiling:
    """The best of several repeats. Raises EnvironmentProblem if the process fails."""
    answer = ask(MODULE, {"dtype": dtype})
    return Ceiling(answer["flops_per_second"], answer["bytes_per_second"])


def _answer(dtype: str) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, num_bytes = SIZES[device]
    left = torch.randn(rows, rows, device=device).to(getattr(torch, dtype))
    product = torch.empty_like(left)
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product_seconds, copy_seconds = [], []
    for _ in range(NUM_REPEATS[device]):
        product_seconds.append(_seconds(lambda: torch.mm(left, left, out=product), device))
        copy_seconds.append(_seconds(lambda: target.copy_(source), device))
    return Ceiling(2 * rows**3 / min(product_seconds), 2 * num_bytes / min(copy_seconds))._asdict()


def _seconds(function: Any, device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        function()
        return max(time.process_time() - start, 1e-9)
    start_mark = cuda_event()
    function()
    end_mark = cuda_event()
    torch.cuda.synchronize()
    return start_mark.elapsed_time(end_mark) / 1e3


if __name__ == "__main__":
    serve(_answer)
