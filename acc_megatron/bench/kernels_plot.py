"""Charts of the kernel benchmark: bars for one case, lines for a sweep."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from acc_megatron.kernels.benchmark.run import Row

AXIS_LABELS = {"tokens": "tokens", "supervised": "supervised tokens", "num_shards": "tensor-parallel ranks"}


def plot(path: Path, rows: Sequence[Row], axis: str | None, machine: str) -> None:
    """Draw time and peak memory of both passes together, on logarithmic axes; `axis` is the field that is swept."""
    both = [row for row in rows if row.direction == "both" and row.p50_us is not None]
    figure = _bars(both) if axis is None else _lines(both, axis)
    first = rows[0]
    fixed = {"tokens": first.tokens, "supervised": first.supervised, "vocabulary": first.vocab, "hidden": first.hidden}
    case = ", ".join(f"{name} {value}" for name, value in fixed.items() if name != axis)
    figure.suptitle(f"{case}, {first.dtype}; {machine}", size=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(both: Sequence[Row]) -> Figure:
    names = [row.implementation for row in both]
    figure = Figure(figsize=(9, 0.5 * len(both) + 1.5), layout="constrained")
    panels = (("µs", [row.p50_us for row in both]), ("MiB", [row.peak_mib for row in both]))
    for axes, (label, values) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        bars = axes.barh(names, values, color="#3b6ea5")
        axes.bar_label(bars, padding=3, fontsize=8)
        axes.set(xscale="log", xlabel=label, xmargin=0.25)
    return figure


def _lines(both: Sequence[Row], axis: str) -> Figure:
    """One line per implementation; it ends where the implementation does not fit."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (field, label) in zip(panels, (("p50_us", "µs"), ("peak_mib", "MiB")), strict=True):
        for name in dict.fromkeys(row.implementation for row in both):
            own = [row for row in both if row.implementation == name]
            axes.plot([getattr(row, axis) for row in own], [getattr(row, field) for row in own], "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel=AXIS_LABELS[axis], ylabel=label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure
