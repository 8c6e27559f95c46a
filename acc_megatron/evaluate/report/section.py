"""The section of report.html about one benchmark: means, means by group, a figure by length, and differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from acc_megatron.common.html_page import Figure, Table, matplotlib_text, svg
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.report.means import NONE, headline_first, percent
from acc_megatron.evaluate.results import differences, natural_order
from acc_megatron.evaluate.results_format import Difference, ModelSummary, Results

NUM_SAMPLES = 3  # of each model
SHOWN_CHARS = 1200
_COLORS = ("#1f5fa8", "#c2571a", "#2e7d4f", "#8a3fa0", "#8c6d1f", "#555555")


@dataclass(frozen=True)
class ShownModel:
    """One model under its label on the page, with the results that it comes from."""

    label: str
    model: str
    results: Results

    def has(self, benchmark: str, kind: str) -> bool:
        """Whether it was asked a benchmark of this name and kind."""
        found = self.results["benchmarks"].get(benchmark)
        return found is not None and found["kind"] == kind and self.model in found["models"]

    def summary(self, benchmark: str) -> ModelSummary:
        """Its summary on a benchmark that it was asked."""
        return self.results["benchmarks"][benchmark]["models"][self.model]


@dataclass(frozen=True)
class Sample:
    """One answer to browse."""

    title: str
    response: str


@dataclass(frozen=True)
class Section:
    """What the template shows of one benchmark, in this order."""

    title: str
    notes: list[str]
    parts: list[Table | Figure]
    more: list[Table | Figure]  # further tables, which the page shows on request
    samples: list[Sample]
    headline: str  # the metric that the page compares first
    differences: list[Difference]


def benchmark_section(name: str, kind: str, shown: Sequence[ShownModel], settings: dict[str, Any]) -> Section:
    """The section about benchmark `name` with the models that were asked it; `settings` are the first run's."""
    summaries = [(one, one.summary(name)) for one in shown]
    metrics = sorted({metric for _, summary in summaries for metric in summary["means"]}, key=headline_first(kind))
    rows = [
        (one.label, f"{summary['num_items']:,}", *(percent(summary, metric) for metric in metrics))
        for one, summary in summaries
    ]
    headline = BENCHMARKS[kind].headline or metrics[0]
    differences = _differences(name, shown, settings)
    by_length, more = _group_parts(headline, metrics, summaries)
    return Section(
        title=name,
        notes=_notes(name, kind, shown),
        parts=[
            *([_differences_table(differences, metrics)] if differences else []),
            Table(("model", "items", *metrics), rows, number_columns=range(1, len(metrics) + 2)),
            *by_length,
        ],
        more=more,
        samples=[sample for one in shown for sample in _samples(name, headline, one)],
        headline=headline,
        differences=differences,
    )


def _notes(name: str, kind: str, shown: Sequence[ShownModel]) -> list[str]:
    """What the rows are, for each run if they differ; and how many answers were matched only in part."""
    labels: dict[str, list[str]] = {}
    for one in shown:
        results = one.results
        rows = BENCHMARKS[kind].describe_rows(
            results["benchmarks"][name], results["settings"]["benchmarks"][name], results["tokenizer"]["name"]
        )
        labels.setdefault(rows, []).append(one.label)
    notes = [f"{', '.join(models)}: {rows}." if len(labels) > 1 else f"{rows}." for rows, models in labels.items()]
    for one in shown:
        if count := one.summary(name)["asked"]["num_longer_than_matched"]:
            notes.append(
                f"{one.label}: {count:,} answers are longer than the grader matches; the rest of each counts as wrong."
            )
    return notes


def _group_parts(
    headline: str, metrics: Sequence[str], summaries: Sequence[tuple[ShownModel, ModelSummary]]
) -> tuple[list[Table | Figure], list[Table | Figure]]:
    """The means by length, with a figure; and the means by every other group. Means that are all 0 need no figure."""
    by_length: list[Table | Figure] = []
    more: list[Table | Figure] = []
    for group in dict.fromkeys(group for _, summary in summaries for group in summary["groups"]):
        found = {value for _, summary in summaries for value in summary["groups"].get(group, {})}
        values = sorted(found, key=natural_order)  # two runs may have different bins
        if len(values) > 1:
            for metric in (headline, f"flexible_{headline}"):
                if metric in metrics:
                    parts = by_length if group == "bin_tokens" and metric == headline else more
                    parts.append(_group_table(group, values, metric, summaries))
            if group == "bin_tokens" and any(summary["means"].get(headline) for _, summary in summaries):
                drawing = _bins_drawing([value for value in values if value[0].isdecimal()], headline, summaries)
                by_length.append(Figure(drawing, f"{headline} by length in tokens, with 95 % intervals over items."))
    return by_length, more


def _samples(name: str, headline: str, one: ShownModel) -> list[Sample]:
    """The first answers of a model; the page is not the place for all of them."""
    items = [item for item in one.results["items"] if item["benchmark"] == name and item["model"] == one.model]
    return [
        Sample(
            f"{one.label}, {item['id']}: {headline} {100 * item['scores'].get(headline, 0):.0f}",
            item["answers"][0]["response"][:SHOWN_CHARS] or "(empty)",
        )
        for item in items[:NUM_SAMPLES]
        if item.get("answers")
    ]


def _group_table(
    group: str, values: Sequence[str], metric: str, summaries: Sequence[tuple[ShownModel, ModelSummary]]
) -> Table:
    header = (f"{metric} by {group}", *(one.label for one, _ in summaries))
    rows = []
    for value in values:
        found = [summary["groups"].get(group, {}).get(value) for _, summary in summaries]
        rows.append((value, *(f"{percent(part, metric)} (n {part['num_items']})" if part else NONE for part in found)))
    return Table(header, rows, number_columns=range(1, len(header)))


def _bins_drawing(values: Sequence[str], metric: str, summaries: Sequence[tuple[ShownModel, ModelSummary]]) -> Markup:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(9, 3.4), layout="constrained")
    axes = drawing.subplots()
    for number, (one, summary) in enumerate(summaries):
        bins = summary["groups"].get("bin_tokens", {})
        found = [(index, bins[value]) for index, value in enumerate(values) if value in bins]
        positions = [index + 0.06 * (number - (len(summaries) - 1) / 2) for index, _ in found]
        means = [100 * part["means"][metric] for _, part in found]
        bounds = [part["intervals"][metric] or [part["means"][metric]] * 2 for _, part in found]
        spread = [
            [max(0.0, mean - 100 * low) for mean, (low, _) in zip(means, bounds, strict=True)],
            [max(0.0, 100 * high - mean) for mean, (_, high) in zip(means, bounds, strict=True)],
        ]
        color = _COLORS[number % len(_COLORS)]
        label = matplotlib_text(one.label)
        axes.errorbar(positions, means, yerr=spread, marker="o", capsize=3, color=color, label=label)
    axes.set_xticks(range(len(values)), values, fontsize=8)
    axes.set_ylim(-2, 102)
    axes.set_ylabel(f"{metric}, percent")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg(drawing)


def _differences(name: str, shown: Sequence[ShownModel], settings: dict[str, Any]) -> list[Difference]:
    # this run's models minus those it is compared with; within a run the later model minus the earlier
    ordered = sorted(shown, key=lambda one: one.results is shown[0].results)
    items = {
        one.label: [item for item in one.results["items"] if item["benchmark"] == name and item["model"] == one.model]
        for one in ordered
    }
    return differences(items, samples=settings["bootstrap_samples"], seed=settings["seed"])


def _differences_table(found: Sequence[Difference], metrics: Sequence[str]) -> Table:
    rows = [
        (f"{one['model']} minus {one['minus']}", f"{one['num_items']:,}", *(percent(one, metric) for metric in metrics))
        for one in found
    ]
    header = ("difference on the questions that both answered", "items", *metrics)
    return Table(header, rows, number_columns=range(1, len(metrics) + 2))
