"""The learning-rate schedules against their formulas."""

import math

import pytest

from acc_megatron.config import OptimizerConfig
from acc_megatron.errors import ConfigError
from acc_megatron.training.schedules import SCHEDULES, learning_rate

NUM_STEPS, WARMUP = 100, 5


def rates(schedule: str) -> list[float]:
    settings = OptimizerConfig(schedule=schedule, learning_rate=1.0, min_learning_rate=0.1, warmup_fraction=0.05)
    return [learning_rate(step, NUM_STEPS, settings) for step in range(NUM_STEPS)]


def test_the_cosine_schedule_warms_up_and_falls_to_its_minimum() -> None:
    found = rates("cosine")
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5] == pytest.approx(1.0) and found[99] == pytest.approx(0.1)
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 94)) for step in range(95)]
    assert found[5:] == pytest.approx(expected)


def test_the_linear_schedule_falls_by_the_same_amount_in_every_step() -> None:
    found = rates("linear")
    assert found[5] == pytest.approx(1.0) and found[99] == pytest.approx(0.1)
    steps = [before - after for before, after in zip(found[5:], found[6:], strict=False)]
    assert steps == pytest.approx([0.9 / 94] * 94)


def test_the_constant_schedule_stays_at_the_highest_rate_after_the_warm_up() -> None:
    assert rates("constant")[4:] == [1.0] * 96


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_with_the_same_warm_up(name: str) -> None:
    assert rates(name)[:WARMUP] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_an_unknown_schedule_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.schedule must be one of 'cosine', .*, got 'square'"):
        rates("square")
