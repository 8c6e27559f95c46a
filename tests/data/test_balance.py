"""Like rows share a microbatch: the same rows, less waiting."""

from pathlib import Path

import pytest

from acc_megatron.bench.balance import balance
from acc_megatron.config import load_config
from acc_megatron.data.balance import efficiency, like_with_like, row_cost_flops

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
