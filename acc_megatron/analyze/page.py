"""Figures of the analyses on one self-contained page, drawn from their JSON."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.data_tools.atomic import atomic_file, write_json
from acc_megatron.observe.page import STYLE, figure, svg, table

COLOURS = ("#888888", "#1f5fa8", "#c8641b", "#3b8a4f")


def publish(out: Path, name: str, result: dict[str, Any], body: str) -> Path:
    """Write `out/name.json` and `out/name.html`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", result)
    title = html.escape(f"acc-megatron: {name}")
    sources = table(("checkpoint", "path"), list(result["checkpoints"].items()))
    rows = [(task, str(len(of["documents"])), str(of["left_out_for_length"])) for task, of in result["tasks"].items()]
    tasks = table(("task", "documents", "left out for their length"), rows, numbers={1, 2})
    page = out / f"{name}.html"
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1>{sources}{tasks}{body}</html>"
    )
    with atomic_file(page) as file:
        file.write(text.encode())
    return page


def attention_body(result: dict[str, Any]) -> str:
    """Histograms of the most changed layers, and the mean distance of every head."""
    found, parts = result["attention"], []
    first, *others = found
    span = result["span_tokens"]
    for task in result["tasks"]:
        changed = result["most_changed_layers"][others[0]][task] if others else range(len(found[first][task]))[:3]
        parts.append(f"<h2>{html.escape(task)}</h2>")
        parts.append(figure(_histograms(found, task, list(changed), span),
                            f"Attention by distance in 32 bins over {span:,} tokens, mean over heads."))  # fmt: skip
        parts.append(figure(_heads(found, task), "Mean attention distance in tokens, by layer and head."))
        rows = [
            (name, *(f"{np.mean([np.mean(layer[key]) for layer in tasks[task]]):.4g}" for key in _MEASURES))
            for name, tasks in found.items()
        ]
        far = f"{result['long_range_tokens']:,} tokens or more"
        header = ("checkpoint", "mean distance", f"mass at {far}", "entropy there, nats")
        parts.append(table(header, rows, numbers={1, 2, 3}))
    return "".join(parts)


_MEASURES = ("distance_tokens", "long_range_mass", "long_range_entropy_nats")


def _histograms(found: dict[str, Any], task: str, layers: list[int], span_tokens: int) -> str:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(3.2 * len(layers), 2.6), layout="constrained")
    axes = drawing.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for ax, layer in zip(axes, layers, strict=True):
        for colour, (name, tasks) in zip(COLOURS, found.items(), strict=False):
            mass = np.mean(tasks[task][layer]["histogram"], axis=0)
            ax.step(np.arange(len(mass)) * span_tokens / len(mass), mass, where="post", color=colour, label=name)
        ax.set(title=f"layer {layer}", xlabel="distance, tokens", yscale="log")
    axes[0].set_ylabel("share of attention")
    axes[0].legend(frameon=False)
    return svg(drawing)


def _heads(found: dict[str, Any], task: str) -> str:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(3.4 * len(found), 2.8), layout="constrained")
    axes = drawing.subplots(1, len(found), sharey=True, squeeze=False)[0]
    maps = [np.array([layer["distance_tokens"] for layer in tasks[task]]) for tasks in found.values()]
    top = max(float(values.max()) for values in maps)
    for ax, name, values in zip(axes, found, maps, strict=True):
        image = ax.imshow(values, aspect="auto", vmin=0, vmax=top, cmap="viridis", origin="lower")
        ax.set(title=name, xlabel="head")
    axes[0].set_ylabel("layer")
    axes[0].yaxis.get_major_locator().set_params(integer=True)
    drawing.colorbar(image, ax=list(axes))
    return svg(drawing)


def routing_body(result: dict[str, Any]) -> str:
    """Changes by layer against the first checkpoint, the most changed experts, and how tasks diverge."""
    parts = []
    for task in result["tasks"]:
        parts.append(f"<h2>{html.escape(task)}</h2>")
        changes = {other: of[task] for other, of in result["changes"].items()}
        if changes:
            lines = {other: of["by_layer"] for other, of in changes.items()}
            parts.append(figure(_lines(lines, "share of tokens rerouted"), "Change of expert frequencies by layer."))
            name, of = next(iter(changes.items()))
            rows = [
                (str(layer), str(e["expert"]), f"{e['before']:.4f}", f"{e['after']:.4f}")
                for layer, experts in of["most_changed_experts"].items()
                for e in experts[:5]
            ]
            parts.append(table(("layer", "expert", "before", name), rows, numbers={0, 1, 2, 3}))
    for name, pairs in result["task_divergence_bits"].items():
        if pairs:
            parts.append(f"<h2>Tasks against each other: {html.escape(name)}</h2>")
            parts.append(figure(_lines(pairs, "bits"), "Jensen-Shannon divergence of expert frequencies by layer."))
    return "".join(parts)


def _lines(lines: dict[str, list[float]], label: str) -> str:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(6.4, 2.8), layout="constrained")
    ax = drawing.subplots()
    for colour, (name, values) in zip((*COLOURS[1:], COLOURS[0]), lines.items(), strict=False):
        ax.plot(range(len(values)), values, color=colour, marker="o", markersize=3, label=name)
    ax.set(xlabel="layer", ylabel=label, ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.legend(frameon=False)
    return svg(drawing)
