"""How a benchmark compares with the ACC paper (arXiv 2605.21850).

The totals of MRCR and GraphWalks are the abstract's (68.3 and 77.5, gains of 18.1 and 7.6); the other figures are as
cited by readers of the paper, averages of 3 samples. MRCR has 2 and 4 needles; its total is over items.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from acc_megatron.evaluate.results_format import ModelSummary, Summary

PAPER_MODELS = ("paper: Qwen3-30B-A3B-Thinking", "paper: with ACC", "paper: Qwen3-235B-A22B-Thinking")


@dataclass(frozen=True, slots=True)
class PaperColumn:
    """One column of the paper's tables, and the mean of ours that belongs in it.

    `figures` are percentages of PAPER_MODELS, in their order; the paper may not report the last. Ours is the mean over
    all items, or over the first value of `group` that matches `pattern`, of the first of `metrics` that exists. A total
    counts only if the values of each group in `total_of` are among those listed. `note` is shown below the table.
    """

    title: str
    figures: tuple[float, ...]
    metrics: tuple[str, ...]
    group: str | None = None
    pattern: str = "*"
    total_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    note: str = ""

    def ours(self, summary: ModelSummary) -> tuple[Summary, str] | None:
        """The summary and the metric to show in this column, if the model has one."""
        for part in self._parts(summary):
            for metric in self.metrics:
                if metric in part["means"]:
                    return part, metric
        return None

    def _parts(self, summary: ModelSummary) -> Iterator[Summary]:
        if self.group is not None:
            yield from (
                part
                for value, part in summary["groups"].get(self.group, {}).items()
                if fnmatchcase(value, self.pattern)
            )
        elif all(set(summary["groups"].get(group, {})) <= values for group, values in self.total_of.items()):
            yield summary
