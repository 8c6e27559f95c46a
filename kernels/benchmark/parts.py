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

from acc_megatron.kernels.benchmark.child import DoesNotFit, ask, serve
from acc_megatron.kernels.benchmark.costs import Case, Ceiling, main_grad_bytes
from acc_megatron.kernels.benchmark.machine import gpu_state
from acc_megatron.kernels.benchmark.measure import L2_FLUSH_BYTES, NUM_GPU_WARMUPS, Seconds, cuda_event, percentiles
from acc_megatron.kernels.masked_linear_cross_entropy.autograd import WINDOW_COLUMNS

MODULE = "acc_megatron.kernels.benchmark.parts"


@dataclass(frozen=True)
class Part:
    """One operation, its arithmetic, and the bytes that it reads and writes if it reads each operand once."""

    name: str
    flops: int
    bytes: int
    run: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part of one case. `ceiling_share` is its lower bound at the measured ceilings, divided by the median time.

    If the parts do not fit, one row has the reason as its `status` and no figures.
    """

    part: str
    status: str
    supervised: int
    vocab: int
    hidden: int
    num_shards: int
    dtype: str
    repeats: int
    ceiling_tflop_per_second: float
    ceiling_gb_per_second: float
    gpu_state: str = ""
    p20_us: float | None = None
    p50_us: float | None = None
    p80_us: float | None = None
    gflop: float | None = None
    tflop_per_second: float | None = None
    gb_per_second: float | None = None
    ceiling_share: float | None = None


def measure_parts(case: Case, dtype: str, repeats: int, ceiling: Ceiling) -> list[PartRow]:
    """Measure the parts in a process of their own. Raises EnvironmentProblem if it fails."""
    common: dict[str, Any] = {
        **{name: getattr(case, name) for name in ("supervised", "vocab", "hidden", "num_shards")},
        "dtype": dtype,
        "repeats": repeats,
        **ceiling.rounded(),
    }
    try:
        answer = ask(MODULE, {"case": case, "dtype": dtype, "repeats": repeats})
    except DoesNotFit as error:
        return [PartRow(part="all", status=f"does not fit: {error}", **common)]
    rows = []
    for part in answer["parts"]:
        seconds = Seconds(*(max(value, 1e-9) for value in part["seconds"]))
        bound = max(part["flops"] / ceiling.flops_per_second, part["bytes"] / ceiling.bytes_per_second)
        rows.append(
            PartRow(
                part=part["name"],
                status="measured",
                **common,
                gpu_state=answer["gpu_state"],
                **{f"{name}_us": round(1e6 * value, 1) for name, value in seconds._asdict().items()},
                gflop=round(part["flops"] / 1e9, 2),
                tflop_per_second=round(part["flops"] / seconds.p50 / 1e12, 3),
                gb_per_second=round(part["bytes"] / seconds.p50 / 1e9, 2),
                ceiling_share=round(bound / seconds.p50, 3),
            )
        )
    return rows


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
    parts = [
        {"name": part.name, "flops": part.flops, "bytes": part.bytes, "seconds": measure(part.run, repeats)}
        for part in make_parts(Case(*case), dtype, device)
    ]
    return {"parts": parts, "gpu_state": gpu_state() if device == "cuda" else ""}


def _cpu_seconds(run: Callable[[], object], repeats: int) -> Seconds:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
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
