"""Rows of similar cost share a microbatch, which reduces waiting and does not change the batch."""

import itertools
from typing import Any

import numpy as np
import pytest
from support.commands import ROOT

from acc_megatron.bench.balance import balance
from acc_megatron.config import load_config
from acc_megatron.data.balance import costliest_first, efficiency, row_cost_flops, wait_lower_bound
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import build_layout, smallest_world

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"


def test_sorting_by_cost_keeps_the_rows_of_the_batch() -> None:
    assert costliest_first([7, 3, 9, 1], [2.0, 5.0, 2.0, 8.0]) == [1, 3, 7, 9]


def test_efficiency_is_the_mean_work_over_the_work_of_the_slowest_rank() -> None:
    assert efficiency([4.0, 2.0, 1.0, 1.0], 2) == pytest.approx((3 + 1) / (4 + 1))
    assert efficiency([4.0, 4.0, 1.0, 1.0], 2) == 1.0


def test_the_cost_of_a_row_equals_a_count_of_its_multiplications() -> None:
    model = load_config(RECIPE).model
    # one token of Qwen3-30B-A3B: 3 billion active weights without embedding and head; attention to itself only
    body = 48 * (2048 * (2 * 4096 + 2 * 512) + 8 * 3 * 2048 * 768 + 2048 * 128)
    assert row_cost_flops([1], model) == pytest.approx(2 * body + 48 * 2 * 4096)
    assert row_cost_flops([100, 50], model) == pytest.approx(row_cost_flops([100], model) + row_cost_flops([50], model))
    long, short = row_cost_flops([131_072], model), row_cost_flops([1024] * 128, model)
    assert long > 3 * short, "at 128K attention is most of the work"


def of_8_ranks(*overrides: str) -> dict[str, Any]:
    """The balance of the recipe on as many GPUs as give it 8 data-parallel ranks."""
    config = load_config(RECIPE, overrides)
    return balance(config, build_layout(config.parallel, 8 * smallest_world(config.parallel)))


def test_ranks_wait_less_than_with_rows_in_random_order() -> None:
    result = of_8_ranks("train.global_batch_rows=64")
    assert result["efficiency"] >= 0.90
    assert result["random_efficiency"] < 0.75


def test_no_packing_of_a_batch_waits_less_than_the_lower_bound() -> None:
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
            bound = wait_lower_bound(documents, row_tokens, num_rows, num_ranks)
            assert bound <= best + 1e-9, documents
            tightest = max(tightest, bound / best)
    assert tightest > 0.95, "the bound is close to the optimum for some batch"


def test_document_lengths_limit_the_balance_of_the_recipes_batch_but_not_of_a_larger_one() -> None:
    small, large = of_8_ranks(), of_8_ranks("train.global_batch_rows=64")
    assert small["global_batch_rows"] == load_config(RECIPE).train.global_batch_rows
    assert small["layout"].endswith("DP8")
    with pytest.raises(ConfigError, match=r"train.global_batch_rows 12 is not a multiple of the 8 .* of 128 GPUs"):
        of_8_ranks("train.global_batch_rows=12")
    assert small["efficiency"] <= small["efficiency_bound"] < 0.90 <= large["efficiency"] <= large["efficiency_bound"]
