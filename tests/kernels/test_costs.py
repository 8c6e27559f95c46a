"""The formulas of arithmetic and memory against what torch counts at small size."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from acc_megatron.kernels.costs import COSTS, LIGER_CHUNK_ROWS, Case, table
from acc_megatron.kernels.implementations import implementations
from acc_megatron.kernels.measure import inputs

CASE = Case(tokens=384, supervised=64, vocab=4096, hidden=16, element_bytes=4)
FORMULAS = {
    "plain": "plain",
    "compact + plain": "compact + plain",
    "chunked": "chunked (Liger)",
    "ours, keep": "ours, keep",
    "ours, recompute": "ours, recompute",
}


def counted_peak_bytes(name: str, case: Case) -> int:
    """The largest sum of live allocations, by the allocator's own events."""
    hidden, weight, targets = inputs(case, "float32", "cpu")
    loss = implementations("cpu")[name]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(hidden, weight, targets).backward()
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", FORMULAS)
def test_arithmetic_is_exactly_what_torch_counts(name: str) -> None:
    tensors = inputs(CASE, "float32", "cpu")
    # torch's counter knows the product that adds, not the one that adds in place
    mapping = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        implementations("cpu")[name](*tensors).backward()
    assert counter.get_total_flops() == COSTS[FORMULAS[name]](CASE).flops


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "chunked"])
def test_peak_memory_is_what_the_allocator_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # scratch of a fixed size would hide the rest at a small size
    monkeypatch.setattr("acc_megatron.kernels.vocab_parallel_cross_entropy.reference.BLOCK_ELEMENTS", 4096)
    formula = COSTS[FORMULAS[name]](CASE).peak_bytes
    assert counted_peak_bytes(name, CASE) == pytest.approx(formula, rel=0.15)


def test_the_windows_bound_what_is_recomputed() -> None:
    case = Case(tokens=64, supervised=64, vocab=40_000, hidden=8, element_bytes=4)
    keep, recompute = (counted_peak_bytes(f"ours, {plan}", case) for plan in ("keep", "recompute"))
    assert recompute < 0.5 * keep
    assert COSTS["ours, recompute"](case).peak_bytes < 0.5 * COSTS["ours, keep"](case).peak_bytes


def test_at_full_size_the_table_says_what_the_design_rests_on() -> None:
    case = Case(131_072, 5243, 151_936, 2048)
    plain, keep, recompute = (COSTS[name](case) for name in ("plain", "ours, keep", "ours, recompute"))
    assert plain.flops / keep.flops == pytest.approx(25, rel=1e-3)
    assert recompute.flops * 3 == keep.flops * 4
    assert plain.peak_bytes > 100 * keep.peak_bytes > 100 * recompute.peak_bytes
    assert LIGER_CHUNK_ROWS == 2048 and all(name in table() for name in COSTS)
