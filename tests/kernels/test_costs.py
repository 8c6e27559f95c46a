"""The formulas of arithmetic and memory against what torch counts at a small size."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from acc_megatron.kernels.benchmark.costs import H100, Case, Ceiling, Cost, Phase, floor
from acc_megatron.kernels.benchmark.implementations.chunked import chunk_rows
from acc_megatron.kernels.benchmark.inputs import make_inputs
from acc_megatron.kernels.benchmark.registry import implementation

CASE = Case(tokens=384, supervised=64, vocab=4096, hidden=16, element_bytes=4)
NAMES = ["plain", "plain, compacted", "chunked", "ours, keep", "ours, recompute"]


def cost(name: str, case: Case) -> Cost:
    found = implementation(name).cost(case)
    assert found is not None
    return found


def counted_peak_bytes(name: str, case: Case) -> int:
    """The largest sum of live allocations, from the events of the allocator."""
    hidden, weight, targets = make_inputs(case, "float32", "cpu")
    loss = implementation(name).load("cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(hidden, weight, targets).backward()
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", NAMES)
def test_the_arithmetic_equals_what_torch_counts(name: str) -> None:
    tensors = make_inputs(CASE, "float32", "cpu")
    # torch's counter supports addmm but not addmm_
    mapping = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        implementation(name).load("cpu")(*tensors).backward()
    assert counter.get_total_flops() == cost(name, CASE).flops


@pytest.mark.parametrize("name", [name for name in NAMES if name != "chunked"])
def test_peak_memory_equals_what_the_allocator_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # at a small size the scratch blocks would dominate
    monkeypatch.setattr("acc_megatron.kernels.vocab_parallel_cross_entropy.reference.BLOCK_ELEMENTS", 4096)
    assert counted_peak_bytes(name, CASE) == pytest.approx(cost(name, CASE).peak_bytes, rel=0.15)


def test_recomputed_logits_exist_for_one_window_at_a_time() -> None:
    case = Case(tokens=64, supervised=64, vocab=40_000, hidden=8, element_bytes=4)
    keep, recompute = (counted_peak_bytes(f"ours, {mode}", case) for mode in ("keep", "recompute"))
    assert recompute < 0.5 * keep
    assert cost("ours, recompute", case).peak_bytes < 0.5 * cost("ours, keep", case).peak_bytes


def test_at_full_size_our_arithmetic_and_memory_are_fractions_of_those_of_plain() -> None:
    case = Case(131_072, 5243, 151_936, 2048)
    plain, keep, recompute = (cost(name, case) for name in ("plain", "ours, keep", "ours, recompute"))
    assert plain.flops / keep.flops == pytest.approx(25, rel=1e-3)
    assert recompute.flops * 3 == keep.flops * 4
    assert plain.peak_bytes > 100 * keep.peak_bytes > 100 * recompute.peak_bytes


def test_a_cost_takes_the_longer_of_arithmetic_and_traffic_in_each_phase() -> None:
    cost = Cost((Phase("bound by arithmetic", 30, 1), Phase("bound by traffic", 10, 8)), peak_bytes=0)
    assert (cost.flops, cost.bytes) == (40, 9)
    assert cost.seconds(Ceiling(flops_per_second=10, bytes_per_second=2)) == 3 + 4


def test_the_floor_of_few_rows_contains_the_traffic_of_main_grad() -> None:
    case = Case(tokens=8192, supervised=655, vocab=151_936, hidden=2048)
    arithmetic = 3 * 2 * 655 * 151_936 * 2048 / 989e12
    # the product for the weight waits for reading and writing 1.2 GB of float32
    main_grad = (2 * 4 * 151_936 * 2048 + 2 * 655 * 2048) / 3.35e12
    assert floor(case).seconds(H100) == pytest.approx(2 / 3 * arithmetic + main_grad)
    assert floor(case).seconds(H100) > 1.25 * arithmetic


@pytest.mark.parametrize(
    ("tokens", "vocab", "hidden", "rows"), [(8192, 18_992, 256, 128), (131_072, 151_936, 2048, 2048), (7, 100, 64, 4)]
)
def test_chunks_have_the_rows_of_ligers_rule(tokens: int, vocab: int, hidden: int, rows: int) -> None:
    assert chunk_rows(tokens, vocab, hidden) == rows
