"""Charts of the kernel benchmark: bars for one case, lines for a sweep."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from acc_megatron.common.html_page import matplotlib_text
from acc_megatron.kernels.benchmark.run import Row

OURS, OTHERS = "#1f5fa8", "#b9bfc8"
NO_FIGURES = ("does not fit", "failed")  # the beginning of the status of a row that was tried
AXIS_LABELS = {"tokens": "tokens", "supervised": "supervised tokens", "num_shards": "tensor-parallel ranks"}


def plot(path: Path, rows: Sequence[Row], axis: str | None, machine: str) -> None:
    """Draw time and peak memory of both passes together: bars of one case, or lines over the field `axis` of a sweep.

    The axes of bars are linear and start at 0, those of a sweep are logarithmic. What could not be measured is named.
    """
    both = [row for row in rows if row.direction == "both" and row.p50_us is not None]
    figure = _bars(both) if axis is None else _lines(both, axis)
    first = rows[0]
    sizes = {
        "tokens": f"{first.tokens:,} tokens",
        "supervised": f"{first.supervised:,} supervised",
        "vocab": f"vocabulary {first.vocab:,}",
        "hidden": f"hidden size {first.hidden:,}",
    }
    swept = {"tokens": ("tokens", "supervised"), "num_shards": ("vocab",)}.get(axis or "", (axis,))
    case = ", ".join(text for name, text in sizes.items() if name not in swept)
    lines = (f"Masked loss, forward and backward (lower is better): {case}, {first.dtype}", machine)
    figure.suptitle("\n".join(textwrap.fill(matplotlib_text(line), 120) for line in lines), size=9)
    absent = dict.fromkeys(f"{row.implementation}: {row.status}" for row in rows if row.status.startswith(NO_FIGURES))
    if absent:
        figure.supxlabel(
            "\n".join(textwrap.fill(matplotlib_text(text), 120) for text in absent), size=7, x=0.01, ha="left"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(both: Sequence[Row]) -> Figure:
    """One bar per implementation in the order of the table, ours in another colour."""
    names = [row.implementation for row in both]
    colours = [OURS if name.startswith("ours") else OTHERS for name in names]
    figure = Figure(figsize=(9, 0.35 * len(both) + 1.9), layout="constrained")
    panels = (
        ("time, ms", [(row.p50_us or 0) / 1e3 for row in both], "{:,.2f}"),
        ("peak memory, MiB", [row.peak_mib or 0.0 for row in both], "{:,.0f}"),
    )
    for axes, (label, values, form) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, padding=3, fontsize=8, fmt=form)
        axes.set(xlabel=label, xlim=(0, 1.2 * max(values, default=0) or 1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    return figure


def _lines(both: Sequence[Row], axis: str) -> Figure:
    """One line per implementation; it ends where the implementation does not fit."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    swept = sorted({getattr(row, axis) for row in both})
    for axes, (field, label) in zip(panels, (("p50_us", "time, µs"), ("peak_mib", "peak memory, MiB")), strict=True):
        for name in dict.fromkeys(row.implementation for row in both):
            own = [row for row in both if row.implementation == name]
            axes.plot([getattr(row, axis) for row in own], [getattr(row, field) for row in own], "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel=AXIS_LABELS[axis], ylabel=label)
        axes.set_xticks(swept, [f"{value:,}" for value in swept])
        axes.set_xticks([], minor=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure
