"""The page of `analyze routing`: changes by layer, the most changed experts, and how tasks diverge."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from acc_megatron.analyze.page import STROKES
from acc_megatron.observe.page import as_drawn, figure, svg


def routing_body(result: dict[str, Any]) -> str:
    """Changes against the first checkpoint, by task; then every pair of tasks, by checkpoint."""
    parts = []
    found = result["routing"]
    first = next(iter(found))
    strokes = dict(zip(found, STROKES, strict=False))
    for task in result["tasks"]:
        changes = {other: of[task] for other, of in result["changes"].items()}
        if changes:
            parts.append(f"<h2>{html.escape(task)}</h2>")
            lines = {"": {other: of["by_layer"] for other, of in changes.items()}}
            caption = (
                f"How much the expert frequencies of each layer moved away from {first}: total variation, "
                "half the sum over experts of |change|; 0 is no change, 1 all experts exchanged."
            )
            parts.append(figure(_lines(lines, strokes, "change of frequencies"), caption))
            other, of = next(iter(changes.items()))
            caption = (
                f"The layers that changed most from {first} to {other}, and in each the experts that changed most, "
                "by their share of the layer's routed tokens."
            )
            parts.append(figure(_experts(found, task, of["most_changed_experts"], strokes), caption))
    pairs = {
        pair: {name: of[pair] for name, of in result["task_divergence_bits"].items()}
        for pair in result["task_divergence_bits"][first]
    }
    if pairs:
        parts.append("<h2>Tasks against each other</h2>")
        caption = "Jensen-Shannon divergence of two tasks' expert frequencies by layer, in bits: 0 alike, 1 disjoint."
        parts.append(figure(_lines(pairs, strokes, "divergence, bits"), caption))
    if len(found) == 1:
        parts.append("<p class=note>One checkpoint alone: give --after to see what training changed.</p>")
    return "".join(parts)


def _lines(
    panels: Mapping[str, Mapping[str, Sequence[float]]], strokes: Mapping[str, dict[str, Any]], label: str
) -> str:
    """A panel of lines by layer for each title, three a row, on one scale."""
    import matplotlib.figure

    num_columns = min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    width = 6.4 if len(panels) == 1 else 3.4 * num_columns
    drawing = matplotlib.figure.Figure(figsize=(width, 2.6 * num_rows), layout="constrained")
    axes = drawing.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, values in lines.items():
            ax.plot(range(len(values)), values, marker="o", markersize=3, label=name, **strokes[name])
        ax.set(title=as_drawn(title), ylim=(0, None))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)  # one axis for all
    axes[0, 0].legend(frameon=False, fontsize=8)
    return svg(drawing)


def _experts(
    found: Mapping[str, Any],
    task: str,
    experts_of: Mapping[int, Sequence[Mapping[str, Any]]],
    strokes: Mapping[str, dict[str, Any]],
) -> str:
    """Bars of every checkpoint for the experts that moved, a row a layer."""
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(9, 2.0 * len(experts_of) + 0.3), layout="constrained")
    axes = drawing.subplots(len(experts_of), 1, squeeze=False)[:, 0]
    width = 0.8 / len(found)
    for ax, (layer, experts) in zip(axes, experts_of.items(), strict=True):
        places = np.arange(len(experts))
        numbers = [one["expert"] for one in experts]
        for k, (name, tasks) in enumerate(found.items()):
            shares = [100 * tasks[task][int(layer)]["frequency"][number] for number in numbers]
            shift = (k - (len(found) - 1) / 2) * width
            ax.bar(places + shift, shares, width, color=strokes[name]["color"], label=name)
        ax.set_xticks(places, [str(number) for number in numbers], fontsize=8)
        ax.set(title=f"layer {layer}", ylabel="share, percent")
    axes[-1].set_xlabel("expert, the most changed first")
    handles, labels = axes[0].get_legend_handles_labels()
    # beside the axes, where it covers no bar
    drawing.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
    return svg(drawing)
