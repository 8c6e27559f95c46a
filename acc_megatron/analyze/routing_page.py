"""The page of `analyze routing`: changes by layer, the most changed experts, and the divergence of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from acc_megatron.analyze.comparison_page import STROKES, publish_comparison
from acc_megatron.analyze.results_format import ExpertChange, LayerRouting, RoutingResult
from acc_megatron.common.html_page import Figure, matplotlib_text, svg

RoutingByCheckpoint = dict[str, dict[str, list[LayerRouting]]]


@dataclass(frozen=True)
class TaskSection:
    """What the template shows of one task: changes by layer, and the most changed experts."""

    task: str
    layers: Figure
    experts: Figure


def publish_routing(out: Path, result: RoutingResult) -> Path:
    """Write `out/routing.json` and `out/routing.html`; returns the page."""
    strokes = dict(zip(result["routing"], STROKES, strict=False))
    has_changes = bool(result["changes"])
    sections = [_section(result, task, strokes) for task in result["tasks"]] if has_changes else []
    return publish_comparison(out, "routing", result, sections=sections, task_pairs=_task_pairs(result, strokes))


def _section(result: RoutingResult, task: str, strokes: Mapping[str, dict[str, Any]]) -> TaskSection:
    first = next(iter(result["routing"]))
    changes = {other: of[task] for other, of in result["changes"].items()}
    other, change = next(iter(changes.items()))
    return TaskSection(
        task=task,
        layers=Figure(
            _lines({"": {name: of["by_layer"] for name, of in changes.items()}}, strokes, "change of frequencies"),
            f"Change of the expert frequencies of each layer from {first}: total variation, half the sum over experts "
            "of |change|; 0 means that nothing changed, 1 that all tokens go to other experts.",
        ),
        experts=Figure(
            _experts(result["routing"], task, change["most_changed_experts"], strokes),
            f"The layers that changed most from {first} to {other}, and the experts that changed most in each, by "
            "their share of the layer's routed tokens.",
        ),
    )


def _task_pairs(result: RoutingResult, strokes: Mapping[str, dict[str, Any]]) -> Figure | None:
    divergence = result["task_divergence_bits"]
    pairs = {pair: {name: of[pair] for name, of in divergence.items()} for pair in next(iter(divergence.values()))}
    if not pairs:
        return None
    return Figure(
        _lines(pairs, strokes, "divergence, bits"),
        "Jensen-Shannon divergence of two tasks' expert frequencies by layer, in bits: 0 is equal, 1 is disjoint.",
    )


def _lines(
    panels: Mapping[str, Mapping[str, Sequence[float]]], strokes: Mapping[str, dict[str, Any]], label: str
) -> Markup:
    """One panel of lines by layer for each title, three in a row, on one scale."""
    import matplotlib.figure

    num_columns = min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    drawing = matplotlib.figure.Figure(figsize=(9.6, 2.8 * num_rows), layout="constrained")
    highest = max(value for lines in panels.values() for values in lines.values() for value in values)
    axes = drawing.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, values in lines.items():
            ax.plot(range(len(values)), values, marker="o", markersize=3, label=name, **strokes[name])
        ax.set(title=matplotlib_text(title), ylim=(0, 1.1 * highest or 1))  # room for the highest point
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)  # all panels share this axis
    if len(next(iter(panels.values()))) > 1:
        axes[0, 0].legend(frameon=False, fontsize=8)
    return svg(drawing)


def _experts(
    found: RoutingByCheckpoint,
    task: str,
    experts_of: Mapping[int, Sequence[ExpertChange]],
    strokes: Mapping[str, dict[str, Any]],
) -> Markup:
    """Bars of every checkpoint for the most changed experts, one row of bars for each layer."""
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(9.6, 2.0 * len(experts_of) + 0.3), layout="constrained")
    axes = drawing.subplots(len(experts_of), 1, squeeze=False)[:, 0]
    width = 0.8 / len(found)
    for ax, (layer, experts) in zip(axes, experts_of.items(), strict=True):
        positions = np.arange(len(experts))
        numbers = [one["expert"] for one in experts]
        for k, (name, tasks) in enumerate(found.items()):
            shares = [100 * tasks[task][int(layer)]["frequency"][number] for number in numbers]
            shift = (k - (len(found) - 1) / 2) * width
            ax.bar(positions + shift, shares, width, color=strokes[name]["color"], label=name)
        ax.set_xticks(positions, [str(number) for number in numbers], fontsize=8)
        ax.set(title=f"layer {layer}", ylabel="share, percent")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("expert, the most changed first")
    handles, labels = axes[0].get_legend_handles_labels()
    # next to the axes, where it covers no bar
    drawing.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
    return svg(drawing)
