"""The page of `analyze attention`: histograms of the most changed layers, and how far every head looks."""

import html
from typing import Any

import numpy as np

from acc_megatron.analyze.page import STROKES
from acc_megatron.observe.page import figure, svg, table


def attention_body(result: dict[str, Any]) -> str:
    """Of each task: histograms, maps of heads, and the means of every checkpoint."""
    found, parts = result["attention"], []
    first, *others = found
    for task, of in result["tasks"].items():
        span = of["span_tokens"]
        parts.append(f"<h2>{html.escape(task)}</h2>")
        parts.append(_means(found, task, of["long_range_tokens"]))
        caption = f"Share of attention by distance i - j, in 32 bins over {span:,} tokens, mean over heads and queries"
        if others:
            layers = result["changes"][others[0]][task]["most_changed_layers"]
            caption += f"; the layers that changed most from {first} to {others[0]}. Below: the change against {first}."
        else:
            layers = list(range(min(3, len(found[first][task]))))
            caption += "; the first layers."
        parts.append(figure(_histograms(found, task, layers, span), caption))
        if others:
            parts.append(_changed_layers(result["changes"], task, layers))
        parts.append(figure(_heads(found, task), "Mean attention distance of every head, in tokens."))
    return "".join(parts)


def _means(found: dict[str, Any], task: str, far: int) -> str:
    rows = []
    for name, tasks in found.items():
        values = [
            None if layers[0] is None else float(np.mean(layers))
            for layers in (
                [layer[key] for layer in tasks[task]]
                for key in ("distance_tokens", "long_range_mass", "long_range_entropy_nats")
            )
        ]
        forms = ("{:,.1f}", "{:.3f}", "{:.2f}")
        rows.append(
            (name, *("no pair so far apart" if v is None else f.format(v) for f, v in zip(forms, values, strict=True)))
        )
    header = ("checkpoint", "mean distance, tokens", f"share at {far:,} tokens or more", "entropy there, nats")
    return table(header, rows, numbers={1, 2, 3})


def _changed_layers(changes: dict[str, Any], task: str, layers: list[int]) -> str:
    rows = [
        (str(layer), *(f"{of[task]['by_layer_tokens'][layer]:,.1f}" for of in changes.values())) for layer in layers
    ]
    header = ("most changed layer", *(f"change of {other}, tokens" for other in changes))
    note = "<p class=note>A layer's change is the mean over its heads of |change of mean distance|.</p>"
    return table(header, rows, numbers=set(range(1, len(header)))) + note


def _histograms(found: dict[str, Any], task: str, layers: list[int], span_tokens: int) -> str:
    import matplotlib.figure

    num_rows = 2 if len(found) > 1 else 1
    drawing = matplotlib.figure.Figure(figsize=(3.2 * len(layers), 2.5 * num_rows), layout="constrained")
    axes = drawing.subplots(num_rows, len(layers), sharex=True, sharey="row", squeeze=False)
    for column, layer in enumerate(layers):
        shares = {name: np.mean(tasks[task][layer]["histogram"], axis=0) for name, tasks in found.items()}
        base = next(iter(shares.values()))
        edges = np.linspace(0, span_tokens, len(base) + 1)
        for number, (name, share) in enumerate(shares.items()):
            # a bin without attention has no logarithm
            axes[0, column].stairs(
                np.where(share > 0, share, np.nan), edges, baseline=None, label=name, **STROKES[number]
            )
            if number:
                axes[1, column].stairs(share - base, edges, baseline=None, **STROKES[number])
        axes[0, column].set(title=f"layer {layer}", yscale="log")
        axes[-1, column].set_xlabel("distance, tokens")
    axes[0, 0].set_ylabel("share of attention")
    if num_rows == 2:
        axes[1, 0].set_ylabel("change of share")
        for ax in axes[1]:
            ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes[0, -1].legend(frameon=False, fontsize=8)
    return svg(drawing)


def _heads(found: dict[str, Any], task: str) -> str:
    """The first checkpoint's distances, and what each other one changed, on one scale centred on no change."""
    import matplotlib.figure

    maps = {name: np.array([layer["distance_tokens"] for layer in tasks[task]]) for name, tasks in found.items()}
    drawing = matplotlib.figure.Figure(figsize=(3.6 * len(found), 2.8), layout="constrained")
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
