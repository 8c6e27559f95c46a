"""How means are shown: in percent with their intervals, the headline metric first."""

from collections.abc import Callable

from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.results_format import Summary

NONE = "–"


def percent(summary: Summary | None, metric: str) -> str:
    """A mean with its interval in percent, such as `51.2 [48.0, 54.1]`."""
    if summary is None or metric not in summary["means"]:
        return NONE
    mean, interval = summary["means"][metric], summary["intervals"][metric]
    return points(mean) + (f" [{points(interval[0])}, {points(interval[1])}]" if interval else "")


def points(share: float) -> str:
    """A share or a difference of shares in percent; what rounds to 0 has no sign."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def headline_first(kind: str) -> Callable[[str], tuple[bool, str]]:
    """The sort key that puts the headline metric of a benchmark first and the others in alphabetical order."""
    headline = BENCHMARKS[kind].headline
    return lambda metric: (metric != headline, metric)
