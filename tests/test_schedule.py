"""The learning-rate schedule against its formula."""

import math

import pytest

from acc_megatron.config import OptimizerConfig
from acc_megatron.schedule import learning_rate


def test_the_learning_rate_warms_up_and_falls_to_its_minimum() -> None:
    settings = OptimizerConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_fraction=0.05)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == pytest.approx(1.0) and rates[99] == pytest.approx(0.1)
    middle = 5 + (99 - 5) // 2
    assert rates[middle] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (middle - 5) / 94)))
    assert rates[5:] == sorted(rates[5:], reverse=True)
