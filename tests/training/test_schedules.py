"""The learning-rate schedules against their formulas."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from acc_megatron.config import OptimizerConfig
from acc_megatron.errors import ConfigError
from acc_megatron.training.schedules import DECAY_SHAPES, SCHEDULES, learning_rate

NUM_STEPS, WARMUP = 100, 5


def rates(schedule: str, **more: Any) -> list[float]:
    settings = OptimizerConfig(
        schedule=schedule, learning_rate=1.0, min_learning_rate=0.1, warmup_fraction=0.05, **more
    )
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


def test_the_wsd_schedule_is_constant_and_then_falls_to_its_minimum() -> None:
    # steps 5 to 99 have a progress of 0 to 94 in 94; the last half of them falls
    found = rates("wsd", decay_fraction=0.5)
    assert found[4:53] == [1.0] * 49
    assert found[53:] == pytest.approx([0.1 + 0.9 * (1 - math.sqrt(step / 47)) for step in range(1, 48)])
    assert rates("wsd", decay_fraction=1.0, decay_shape="cosine") == pytest.approx(rates("cosine"))


@pytest.mark.parametrize("shape", DECAY_SHAPES)
def test_the_wsd_schedule_has_the_rates_of_megatrons_own_scheduler(shape: Any) -> None:
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    group: dict[str, Any] = {}
    # Megatron counts from 1 and its warm-up ends one step later: the first step of the decay is the same in both
    scheduler = OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]), init_lr=0.0, max_lr=1.0, min_lr=0.1, lr_warmup_steps=WARMUP,
        lr_decay_steps=NUM_STEPS - 1, lr_decay_style="WSD", start_wd=0.0, end_wd=0.0, wd_incr_steps=1,
        wd_incr_style="constant", wsd_decay_steps=47, lr_wsd_decay_style=shape,
    )  # fmt: skip
    expected = []
    for _ in range(NUM_STEPS - 1):
        scheduler.step(1)
        expected.append(group["lr"])
    found = rates("wsd", decay_fraction=0.5, decay_shape=shape)
    assert found[5:] == pytest.approx(expected[4:])
    assert found[99] == pytest.approx(0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_with_the_same_warm_up(name: str) -> None:
    assert rates(name)[:WARMUP] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_an_unknown_schedule_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.schedule must be one of 'cosine', .*, got 'square'"):
        rates("square")
