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
    return f"{100 * mean:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def headline_first(kind: str) -> Callable[[str], tuple[bool, str]]:
    """The sort key that puts the headline metric of a benchmark first and the others in alphabetical order."""
    headline = BENCHMARKS[kind].headline
    return lambda metric: (metric != headline, metric)
