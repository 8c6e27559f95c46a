"""Uncertainty of means: seeded bootstrap intervals over items, and paired differences between two models."""

from collections.abc import Mapping, Sequence

import numpy as np

from acc_megatron.evaluate.results_format import Summary

CONFIDENCE = 0.95


def summarise(scores: Sequence[Mapping[str, float]], *, samples: int, seed: int) -> Summary:
    """The mean of every metric over items with its 95 % interval `[low, high]`; None for a single item.

    The interval is the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13):
    items are drawn with replacement, all metrics of an item together.
    """
    metrics = sorted({metric for item in scores for metric in item})
    means: dict[str, float] = {}
    intervals: dict[str, list[float] | None] = {}
    for metric in metrics:
        values = np.array([item[metric] for item in scores if metric in item], np.float64)
        means[metric] = float(values.mean())
        intervals[metric] = interval(values, samples=samples, seed=seed)
    return {"num_items": len(scores), "means": means, "intervals": intervals}


def interval(values: np.ndarray, *, samples: int, seed: int) -> list[float] | None:
    """The 95 % percentile-bootstrap interval of the mean of `values` `[items]`; None for fewer than two."""
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=samples)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(counts @ values / len(values), [tail, 1 - tail])
    return [float(low), float(high)]


def paired_difference(
    ours: Mapping[str, Mapping[str, float]], theirs: Mapping[str, Mapping[str, float]], *, samples: int, seed: int
) -> Summary:
    """`ours` minus `theirs`, scores by item, over the items that both have.

    Pairing removes the difficulty of the items from the spread; two separate intervals include it.
    """
    shared = [name for name in ours if name in theirs]
    differences = [
        {metric: value - theirs[name][metric] for metric, value in ours[name].items() if metric in theirs[name]}
        for name in shared
    ]
    return summarise(differences, samples=samples, seed=seed)
