"""The figure of the study: correct answers by length, and look-ups by depth of the evidence."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from summary import DEPTHS
from table import Summary


def draw(summary: Summary, lengths_pages: Sequence[int], trained_pages: tuple[int, int], path: Path) -> None:
    """Draw three panels in percent, with error bars of one standard deviation over seeds; the base is dashed."""
    mpl.rcParams.update({"svg.hashsalt": "small study", "svg.fonttype": "path", "font.size": 9})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, measure in zip(axes[:2], ("retrieval", "multi-hop"), strict=True):
        axis.axvspan(*trained_pages, color="0.92", zorder=0)
        _lines(axis, summary, list(lengths_pages), [f"{measure}/{pages}" for pages in lengths_pages])
        axis.set(title=f"{measure} right", xlabel="pages in the context (shaded: trained on)")
        axis.set_xticks(list(lengths_pages))
    longest = max((pages for pages in lengths_pages if pages <= trained_pages[1]), default=lengths_pages[0])
    _lines(axes[2], summary, list(range(len(DEPTHS))), [f"depth/{longest}/{depth}" for depth in DEPTHS])
    axes[2].set(title=f"look-ups by depth, {longest} pages", xlabel="quarter of the context with the evidence")
    axes[2].set_xticks(range(len(DEPTHS)), DEPTHS)
    axes[0].set(ylabel="%", ylim=(-3, 103))
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=len(summary), frameon=False)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="svg", metadata={"Date": None})
    plt.close(figure)
    part.replace(path)


def _lines(axis: Axes, summary: Summary, places: list[int], measures: list[str]) -> None:
    for name, values in summary.items():
        means = [100 * values[measure][0] for measure in measures]
        deviations = [100 * values[measure][1] for measure in measures]
        style = {"color": "0.4", "linestyle": "--"} if name == "base" else {}
        axis.errorbar(places, means, deviations, label=name, marker="o", markersize=3, capsize=2, **style)
