"""Like rows share a microbatch: the same rows, less waiting."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from acc_megatron.bench.balance import balance
from acc_megatron.config import load_config
from acc_megatron.data.balance import efficiency, least_wait, like_with_like, row_cost_flops

RECIPE = Path(__file__).parent.parent.parent / "examples" / "qwen3_30b_a3b_128k_h100.toml"


def test_the_batch_keeps_its_rows() -> None:
    assert like_with_like([7, 3, 9, 1], [2.0, 5.0, 2.0, 8.0]) == [1, 3, 7, 9]


def test_efficiency_is_mean_work_over_awaited_work() -> None:
    assert efficiency([4.0, 2.0, 1.0, 1.0], 2) == pytest.approx((3 + 1) / (4 + 1))
    assert efficiency([4.0, 4.0, 1.0, 1.0], 2) == 1.0


def test_the_cost_of_a_row_is_that_of_counting_its_multiplications() -> None:
    model = load_config(RECIPE).model
    # one token of Qwen3-30B-A3B: 3 B active weights less embedding and head; attention over itself alone
    body = 48 * (2048 * (2 * 4096 + 2 * 512) + 8 * 3 * 2048 * 768 + 2048 * 128)
    assert row_cost_flops([1], model) == pytest.approx(2 * body + 48 * 2 * 4096)
    assert row_cost_flops([100, 50], model) == pytest.approx(row_cost_flops([100], model) + row_cost_flops([50], model))
    long, short = row_cost_flops([131_072], model), row_cost_flops([1024] * 128, model)
    assert long > 3 * short, "at 128K attention is most of the work"


def test_ranks_wait_far_less_than_in_random_order_over_the_same_batches() -> None:
    result = balance(load_config(RECIPE), data_parallel=8, global_batch_rows=64)
    assert result["efficiency"] >= 0.90
    assert result["random_efficiency"] < 0.75


def test_no_packing_of_a_batch_waits_less_than_the_bound() -> None:
    row_tokens, num_rows, num_ranks = 8, 4, 2
    rng = np.random.default_rng(0)
    tightest = 0.0
    for _ in range(40):
        documents = [(int(n), float(n) + float(n) ** 2) for n in rng.integers(1, row_tokens + 1, 5)]
        best = float("inf")
        for places in itertools.product(range(num_rows), repeat=len(documents)):
            tokens, work = [0] * num_rows, [0.0] * num_rows
            for (length, cost), place in zip(documents, places, strict=True):
                tokens[place] += length
                work[place] += cost
            if max(tokens) <= row_tokens:
                best = min(best, max(work[:2]) + max(work[2:]))
        if best < float("inf"):
            bound = least_wait(documents, row_tokens, num_rows, num_ranks)
            assert bound <= best + 1e-9, documents
            tightest = max(tightest, bound / best)
    assert tightest > 0.95, "the bound says something"


def test_at_the_recipes_own_batch_the_lengths_forbid_what_a_larger_batch_reaches() -> None:
    config = load_config(RECIPE)
    small = balance(config, data_parallel=8, global_batch_rows=config.train.global_batch_rows)
    large = balance(config, data_parallel=8, global_batch_rows=64)
    assert small["efficiency"] <= small["efficiency_bound"] < 0.90 <= large["efficiency"] <= large["efficiency_bound"]
