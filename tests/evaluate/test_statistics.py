"""Bootstrap intervals have the right width and coverage, and pairing removes the spread that two models share."""

import numpy as np
import pytest

from acc_megatron.evaluate.statistics import interval, paired_difference, summarise


def test_an_interval_of_many_items_is_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, 1500)
    low, high = interval(values, samples=4000, seed=1)
    half = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_an_interval_covers_the_true_mean_in_95_percent_of_cases():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(400):
        low, high = interval((rng.random(60) < 0.4).astype(float), samples=400, seed=seed)
        hits += low <= 0.4 <= high
    assert (
        0.90 <= hits / 400 <= 0.98
    )  # 95 %, within four standard deviations of 400 draws and the error of the bootstrap


def test_intervals_depend_only_on_their_seed():
    values = np.arange(20) / 19
    assert interval(values, samples=50, seed=3) == interval(values, samples=50, seed=3)
    assert interval(values, samples=50, seed=3) != interval(values, samples=50, seed=4)


def test_one_item_has_a_mean_and_no_interval():
    assert summarise([{"f1": 0.5}], samples=10, seed=0) == {
        "num_items": 1, "means": {"f1": 0.5}, "intervals": {"f1": None},
    }  # fmt: skip


def test_the_mean_of_a_metric_is_over_the_items_that_have_it():
    summary = summarise([{"a": 1.0}, {"a": 0.0, "b": 1.0}, {"b": 1.0}], samples=10, seed=0)
    assert (summary["num_items"], summary["means"]) == (3, {"a": 0.5, "b": 1.0})


def test_a_paired_difference_removes_the_difficulty_of_the_items():
    rng = np.random.default_rng(0)
    difficulty = rng.random(200)
    before = {str(k): {"f1": d} for k, d in enumerate(difficulty)}
    after = {str(k): {"f1": d + 0.05 + 0.001 * rng.standard_normal()} for k, d in enumerate(difficulty)}
    found = paired_difference(after, before, samples=500, seed=0)
    low, high = found["intervals"]["f1"]
    assert 0.049 < low < 0.05 < high < 0.051  # the interval of one mean is 0.04 wide
    assert found["num_items"] == 200


def test_a_paired_difference_is_over_the_items_that_both_have():
    before = {"a": {"f1": 0.0}, "b": {"f1": 1.0}}
    after = {"b": {"f1": 0.5}, "c": {"f1": 1.0}}
    found = paired_difference(after, before, samples=10, seed=0)
    assert (found["num_items"], found["means"]) == (1, {"f1": -0.5})
    assert paired_difference({"c": {}}, before, samples=10, seed=0)["num_items"] == 0
