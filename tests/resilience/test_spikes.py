"""The spike rule against an independent statement of it, and its state through JSON."""

import json
import statistics

import numpy as np
import pytest

from acc_megatron.config import ResilienceConfig
from acc_megatron.resilience.ended_run import Abandoned
from acc_megatron.resilience.spikes import SpikeRule

SETTINGS = ResilienceConfig()


def feed(rule: SpikeRule, losses: list[float], first: int = 1) -> list[int]:
    skipped = []
    for step, loss in enumerate(losses, first):
        if is_spike := rule.is_spike(loss, 1.0 + loss / 10):
            skipped.append(step)
        rule.record(step, loss, 1.0 + loss / 10, skipped=is_spike)
    return skipped


def test_a_step_more_than_six_sigma_above_the_last_128_is_skipped_and_never_enters_the_window() -> None:
    losses = np.random.default_rng(0).normal(3.0, 0.1, 300).tolist()
    known: list[float] = []
    for place, loss in enumerate(losses):
        # if the first spike entered the window, the third would not exceed six sigma
        if sigmas := {200: 6.5, 220: 5.5, 240: 6.5}.get(place):
            loss = statistics.fmean(known[-128:]) + sigmas * statistics.pstdev(known[-128:])
            losses[place] = loss
        if sigmas != 6.5:
            known.append(loss)
    assert feed(SpikeRule(SETTINGS), losses) == [201, 241]


def test_no_step_is_a_spike_before_half_a_window_is_known() -> None:
    assert feed(SpikeRule(SETTINGS), [3.0, 3.1] * 31 + [99.0]) == []
    assert feed(SpikeRule(SETTINGS), [3.0, 3.1] * 32 + [99.0]) == [65]


def test_a_gradient_norm_can_be_the_spike_and_zero_sigmas_turn_the_rule_off() -> None:
    for sigmas, expected in ((6.0, True), (0.0, False)):
        rule = SpikeRule(ResilienceConfig(spike_sigmas=sigmas))
        feed(rule, [3.0, 3.1] * 64)
        assert rule.is_spike(3.05, 9.0) is expected
        assert not rule.is_spike(3.05, 1.3)


def test_three_spikes_within_a_hundred_steps_end_the_run() -> None:
    for last, ends in ((299, True), (300, False)):
        rule = SpikeRule(SETTINGS)
        for step in range(1, last + 1):
            rule.record(step, 3.0, 1.0, skipped=step in (200, 250, last))
            if step < last or not ends:
                rule.check(step)
        if ends:
            with pytest.raises(Abandoned, match=r"Skipped steps: 200, 250, 299\.") as caught:
                rule.check(last)
            assert caught.value.error.exit_code == 22


def test_the_state_is_restored_exactly_from_json() -> None:
    rng = np.random.default_rng(1)
    losses = [*rng.normal(3.0, 0.1, 150).tolist(), 9.0, *rng.normal(3.0, 0.1, 50).tolist()]
    uninterrupted, first, second = SpikeRule(SETTINGS), SpikeRule(SETTINGS), SpikeRule(SETTINGS)
    skipped = feed(uninterrupted, losses)
    before = feed(first, losses[:160])
    second.load(json.loads(json.dumps(first.state())))
    assert before + feed(second, losses[160:], 161) == skipped == [151]
    assert second.state() == uninterrupted.state()
