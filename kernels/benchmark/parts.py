"""Measures the products and kernels of the op one by one (`acc-megatron bench kernels --parts`).

On a GPU both gradients are computed by the kernel of this package and by cuBLAS, next to a plain product of the same
size; on CPU the parts are those of the torch reference.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from acc_megatron.kernels.benchmark.child import ask, serve
from acc_megatron.kernels.benchmark.costs import Case, Ceiling, main_grad_bytes
from acc_megatron.kernels.benchmark.measure import L2_FLUSH_BYTES, NUM_GPU_WARMUPS, Seconds, cuda_event, percentiles
from acc_megatron.kernels.masked_linear_cross_entropy.autograd import WINDOW_COLUMNS

MODULE = "acc_megatron.kernels.benchmark.parts"
COLUMNS = ("part", "µs p20", "p50", "p80", "TFLOP/s", "GB/s", "share of ceiling %")


@dataclass(frozen=True)
class Part:
    """One operation, its arithmetic, and the bytes that it reads and writes if it reads each operand once."""

    name: str
    flops: int
    bytes: int
    run: Callable[[], object]


def measure_parts(case: Case, dtype: str, repeats: int, ceiling: Ceiling) -> str:
    """Markdown table of the parts; the share is the longer bound at `ceiling` divided by the median time."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for part in ask(MODULE, {"case": case, "dtype": dtype, "repeats": repeats})["parts"]:
        seconds = Seconds(*part["seconds"])
        bound = max(part["flops"] / ceiling.flops_per_second, part["bytes"] / ceiling.bytes_per_second)
        times = " | ".join(f"{1e6 * value:.0f}" for value in seconds)
        rates = f"{part['flops'] / seconds.p50 / 1e12:.2f} | {part['bytes'] / seconds.p50 / 1e9:.1f}"
        lines.append(f"| {part['name']} | {times} | {rates} | {100 * bound / seconds.p50:.0f} |")
    return "\n".join(lines)


def make_parts(case: Case, dtype: str, device: str) -> Iterator[Part]:
    """The parts on random rows; each can run repeatedly."""
    backend, variants = _backend(device)
    generator = torch.Generator(device).manual_seed(0)
    kind = getattr(torch, dtype)
    num_rows, vocab, hidden = case.supervised, case.vocab, case.hidden
    rows = torch.randn(num_rows, hidden, generator=generator, device=device).to(kind)
    weight = (torch.randn(vocab, hidden, generator=generator, device=device) * hidden**-0.5).to(kind)
    columns = torch.randint(0, vocab, (num_rows,), generator=generator, device=device)
    ones = torch.ones(num_rows, device=device)
    product = 2 * num_rows * vocab * hidden
    rows_bytes, weight_bytes, logit_bytes = (
        count * case.element_bytes for count in (num_rows * hidden, vocab * hidden, num_rows * vocab)
    )

    def statistics(keep: bool) -> Any:
        return backend.head_statistics(rows, weight, columns, with_entropy=False, keep=keep)

    yield Part("plain product", product, rows_bytes + weight_bytes + logit_bytes, lambda: torch.mm(rows, weight.T))
    yield Part("statistics", product, rows_bytes + weight_bytes, lambda: statistics(False))
    yield Part("statistics, kept", product, rows_bytes + weight_bytes + logit_bytes, lambda: statistics(True))
    kept = statistics(True)[1]
    yield Part("kept gradient", 0, 2 * logit_bytes, lambda: backend.kept_gradient(kept, columns, ones, ones, ones))
    window = slice(0, min(WINDOW_COLUMNS, vocab))
    yield Part(
        "recomputed gradient of a window",
        product * window.stop // vocab,
        rows_bytes + (weight_bytes + logit_bytes) * window.stop // vocab,
        lambda: backend.window_gradient(rows, weight, window, columns, ones, ones, ones),
    )
    sum_rows = torch.zeros(num_rows, hidden, device=device)
    main_grad = torch.zeros(vocab, hidden, device=device)
    dlogits = kept.exponentials
    for name, in_library in variants.items():
        for transpose, out, right, traffic in (
            (False, sum_rows, weight, weight_bytes + 8 * num_rows * hidden),
            (True, main_grad, rows, rows_bytes + main_grad_bytes(case)),
        ):
            label = "gradient of weight" if transpose else "gradient of hidden states"
            add = functools.partial(_add_product, backend, in_library, out, dlogits, right, transpose)
            yield Part(f"{label}, {name}", product, logit_bytes + traffic, add)


def _backend(device: str) -> tuple[ModuleType, dict[str, bool]]:
    """The backend, and by name whether the gradients are products of the library."""
    if device == "cpu":
        from acc_megatron.kernels.masked_linear_cross_entropy import reference

        return reference, {"torch": True}
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    return launch, {"kernel": False} | ({"cuBLAS": True} if launch.LIBRARY_PRODUCTS else {})


def _add_product(
    backend: Any, in_library: bool, out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, transpose: bool
) -> None:
    # this process measures only, so nothing else reads the setting
    if hasattr(backend, "LIBRARY_PRODUCTS"):
        backend.LIBRARY_PRODUCTS = in_library
    backend.add_product_(out, left, right, transpose=transpose)


def _answer(case: Sequence[int], dtype: str, repeats: int) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure = _gpu_seconds if device == "cuda" else _cpu_seconds
    return {
        "parts": [
            {"name": part.name, "flops": part.flops, "bytes": part.bytes, "seconds": measure(part.run, repeats)}
            for part in make_parts(Case(*case), dtype, device)
        ]
    }


def _cpu_seconds(run: Callable[[], object], repeats: int) -> Seconds:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(max(time.process_time() - start, 1e-9))
    return percentiles(seconds)


def _gpu_seconds(run: Callable[[], object], repeats: int) -> Seconds:
    flush = torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(NUM_GPU_WARMUPS):
        run()
    marks = []
    for _ in range(repeats):
        flush.zero_()
        start = cuda_event()
        run()
        marks.append((start, cuda_event()))
    torch.cuda.synchronize()
    return percentiles([start.elapsed_time(end) / 1e3 for start, end in marks])


if __name__ == "__main__":
    serve(_answer)
