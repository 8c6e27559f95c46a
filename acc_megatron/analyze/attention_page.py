"""The page of `analyze attention`: histograms of the most changed layers, and the mean distance of every head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from acc_megatron.analyze.comparison_page import STROKES, publish_comparison
from acc_megatron.analyze.results_format import AttentionResult, LayerAttention
from acc_megatron.common.html_page import Figure, Table, svg

AttentionByCheckpoint = dict[str, dict[str, list[LayerAttention]]]


@dataclass(frozen=True)
class TaskSection:
    """What the template shows of one task; `changed_layers` is None for a single checkpoint."""

    task: str
    means: Table
    histograms: Figure
    changed_layers: Table | None
    heads: Figure


def publish_attention(out: Path, result: AttentionResult) -> Path:
    """Write `out/attention.json` and `out/attention.html`; returns the page."""
    return publish_comparison(out, "attention", result, sections=[_section(result, task) for task in result["tasks"]])


def _section(result: AttentionResult, task: str) -> TaskSection:
    found = result["attention"]
    span, far = result["tasks"][task]["span_tokens"], result["tasks"][task]["long_range_tokens"]
    first, *others = found
    caption = f"Share of attention by distance i - j, in 32 bins over {span:,} tokens, mean over heads and queries"
    if others:
        layers = result["changes"][others[0]][task]["most_changed_layers"]
        caption += (
            f"; the layers that changed most from {first} to {others[0]}. Below: the change from {first} in percentage "
            "points."
        )
    else:
        layers = list(range(min(3, len(found[first][task]))))
        caption += "; the first layers."
    return TaskSection(
        task=task,
        means=_means(found, task, far),
        histograms=Figure(_histograms(found, task, layers, span), caption),
        changed_layers=_changed_layers(result, task, layers) if others else None,
        heads=Figure(_heads(found, task), "Mean attention distance of every head, in tokens."),
    )


def _means(found: AttentionByCheckpoint, task: str, far: int) -> Table:
    rows = []
    for name, tasks in found.items():
        layers = tasks[task]
        cells = [f"{np.mean([layer['distance_tokens'] for layer in layers]):,.1f}"]
        for values, form in (
            ([layer["long_range_mass"] for layer in layers], ".3f"),
            ([layer["long_range_entropy_nats"] for layer in layers], ".2f"),
        ):
            known = [value for value in values if value is not None]
            cells.append(f"{np.mean(known):{form}}" if known else "no pair at this distance")
        rows.append((name, *cells))
    header = ("checkpoint", "mean distance, tokens", f"share at {far:,} tokens or more", "entropy there, nats")
    return Table(header, rows, number_columns={1, 2, 3})


def _changed_layers(result: AttentionResult, task: str, layers: Sequence[int]) -> Table:
    changes = result["changes"]
    rows = [
        (str(layer), *(f"{of[task]['by_layer_tokens'][layer]:,.1f}" for of in changes.values())) for layer in layers
    ]
    header = ("most changed layer", *(f"change of {other}, tokens" for other in changes))
    return Table(header, rows, number_columns=range(1, len(header)))


def _histograms(found: AttentionByCheckpoint, task: str, layers: list[int], span_tokens: int) -> Markup:
    import matplotlib.figure

    num_rows = 2 if len(found) > 1 else 1
    drawing = matplotlib.figure.Figure(figsize=(9.6, 2.5 * num_rows), layout="constrained")
    axes = drawing.subplots(num_rows, len(layers), sharex=True, sharey="row", squeeze=False)
    for column, layer in enumerate(layers):
        shares = {name: np.mean(tasks[task][layer]["histogram"], axis=0) for name, tasks in found.items()}
        base = next(iter(shares.values()))
        edges = np.linspace(0, span_tokens, len(base) + 1)
        for number, (name, share) in enumerate(shares.items()):
            # an empty bin has no logarithm
            axes[0, column].stairs(
                np.where(share > 0, share, np.nan), edges, baseline=None, label=name, **STROKES[number]
            )
            if number:
                axes[1, column].stairs(100 * (share - base), edges, baseline=None, **STROKES[number])
        axes[0, column].set(title=f"layer {layer}", yscale="log")
        axes[-1, column].set_xlabel("distance, tokens")
    axes[0, 0].set_ylabel("share of attention")
    if num_rows == 2:
        axes[1, 0].set_ylabel("change, points")
        for ax in axes[1]:
            ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes[0, -1].legend(frameon=False, fontsize=8)
    return svg(drawing)


def _heads(found: AttentionByCheckpoint, task: str) -> Markup:
    """Maps of the first checkpoint's distances and of each other's change, on one scale centred at no change."""
    import matplotlib.figure

    maps = {name: np.array([layer["distance_tokens"] for layer in tasks[task]]) for name, tasks in found.items()}
    drawing = matplotlib.figure.Figure(figsize=(9.6, 2.8), layout="constrained")
    axes = drawing.subplots(1, len(found), sharey=True, squeeze=False)[0]
    (first, base), *others = maps.items()
    top = max((float(np.abs(values - base).max()) for _, values in others), default=0.0) or 1.0
    image = axes[0].imshow(base, aspect="auto", cmap="viridis", origin="lower")
    axes[0].set(title=first, ylabel="layer")
    drawing.colorbar(image, ax=axes[0], label="tokens")
    for ax, (name, values) in zip(axes[1:], others, strict=True):
        image = ax.imshow(values - base, aspect="auto", vmin=-top, vmax=top, cmap="RdBu_r", origin="lower")
        ax.set_title(f"{name} minus {first}")
    if others:
        drawing.colorbar(image, ax=list(axes[1:]), label="change, tokens")
    for ax in axes:
        ax.set_xlabel("head")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].yaxis.get_major_locator().set_params(integer=True)
    return svg(drawing)
