"""A run's part of the report: its curves, its experts' load, and the steps at which something happened to it."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.observe.metrics import read_restarts, read_steps
from acc_megatron.observe.page import figure, svg, table
from acc_megatron.observe.usage import from_ranges

BLUE, GREY, RED = "#1f5fa8", "#8a8a8a", "#b02a2a"
MOST_EVENTS = 50
SMOOTHED_STEPS = 20


def run_section(run_dir: Path) -> str:
    """The section as HTML."""
    steps, restarts = read_steps(run_dir), read_restarts(run_dir)
    if not steps:
        return "<h2>Training</h2><p>No step is logged yet.</p>"
    parts = ["<h2>Training</h2>", _facts(steps, restarts)]
    marks = "Dashed lines are restarts, triangles skipped steps."
    parts.append(figure(_curves(steps, restarts), f"Loss is per supervised token. {marks}"))
    if steps[0].get("expert_load_max_over_mean"):
        parts.append(_expert_load(steps, restarts))
    return "".join(parts) + _events(steps, restarts)


def _facts(steps: list[dict[str, Any]], restarts: list[tuple[int, int]]) -> str:
    first, last = steps[0], steps[-1]
    rate = float(np.median([row["tokens_per_second"] for row in steps]))
    facts = [
        ("Steps", f"{len(steps):,}"),
        ("Loss", f"{first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step {last['step']}"),
        ("Throughput", f"median {rate:,.0f} tokens/s in layout {last['layout']}"),
    ]
    if "supervised_tokens" in last:
        supervised, tokens = (sum(row[key] for row in steps) for key in ("supervised_tokens", "tokens"))
        facts.append(("Tokens", f"{tokens:,} with padding, {supervised:,} of them supervised"))
    if "model_flops_per_second" in last:
        flops = float(np.median([row["model_flops_per_second"] for row in steps]))
        shares = [row["peak_share"] for row in steps if row["peak_share"]]
        share = f", {np.median(shares):.1%} of the devices' peak" if shares else "; the peak is not known"
        facts.append(("Model FLOPs", f"median {flops / 1e12:,.3g} TFLOP/s{share}"))
        waited = sum(row["data_wait_seconds"] for row in steps) / sum(row["seconds"] for row in steps)
        facts.append(("Waited for data", f"{waited:.2%} of the time, on the slowest rank"))
        facts.append(("Memory, fullest rank", f"{max(row['memory_peak_bytes'] for row in steps) / 2**30:.2f} GiB"))
    again = sum(number for _, number in restarts)
    facts.append(("Restarts", f"{len(restarts)}, which did {again} steps again" if restarts else "none"))
    skipped = [row["step"] for row in steps if row.get("skipped")]
    facts.append(("Skipped steps", f"{len(skipped)}" if skipped else "none"))
    return table(("", ""), facts)


def _curves(steps: list[dict[str, Any]], restarts: list[tuple[int, int]]) -> str:
    import matplotlib.figure
    from matplotlib.ticker import MaxNLocator

    drawing = matplotlib.figure.Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = drawing.subplots(2, 2, sharex=True)
    numbers = np.array([row["step"] for row in steps])
    skipped = np.array([bool(row.get("skipped")) for row in steps])
    panels = (
        ("loss", "loss"),
        ("grad_norm", "gradient norm"),
        ("tokens_per_second", "tokens/s"),
        ("learning_rate", "learning rate"),
    )
    for axis, (key, title) in zip(axes.flat, panels, strict=True):
        values = np.array([row[key] for row in steps], np.float64)
        many = len(values) > 5 * SMOOTHED_STEPS and key != "learning_rate"
        axis.plot(numbers, values, color=BLUE, linewidth=0.6 if many else 1.3, alpha=0.45 if many else 1.0)
        if many:
            axis.plot(numbers, _smoothed(np.where(skipped, np.nan, values)), color=BLUE, linewidth=1.6)
        if key in ("loss", "grad_norm") and skipped.any():
            axis.plot(numbers[skipped], values[skipped], "v", color=RED, markersize=7, label="skipped")
        _mark_restarts(axis, restarts)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if key == "tokens_per_second":
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(drawing)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The mean of the steps around, skipped ones left out."""
    half = SMOOTHED_STEPS // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nanmean(window) if np.isfinite(window).any() else np.nan for window in windows])


def _mark_restarts(axis: Any, restarts: Sequence[tuple[int, int]], colour: str = GREY) -> None:
    """A dashed line before the first step of each restart."""
    for step, _ in restarts:
        axis.axvline(step - 0.5, color=colour, linestyle="--", linewidth=1)


def _expert_load(steps: list[dict[str, Any]], restarts: list[tuple[int, int]]) -> str:
    import matplotlib.figure
    from matplotlib.ticker import MaxNLocator

    load = np.array([row["expert_load_max_over_mean"] for row in steps], np.float64).T  # [layers, steps]
    dead = np.array([row["dead_experts"] for row in steps], np.int64).T
    layers = len(load)
    drawing = matplotlib.figure.Figure(figsize=(9.6, 1.9 + 0.22 * min(layers, 30)), layout="constrained")
    axis = drawing.subplots()
    bounds = (steps[0]["step"] - 0.5, steps[-1]["step"] + 0.5, layers - 0.5, -0.5)
    highest = max(2.0, float(load.max()))
    image = axis.imshow(
        load, aspect="auto", extent=bounds, cmap="viridis", vmin=1.0, vmax=highest, interpolation="nearest"
    )
    drawing.colorbar(image, ax=axis, label="fullest expert / mean", pad=0.01)
    _mark_restarts(axis, restarts, "white")
    axis.set_xlabel("step")
    axis.set_ylabel("layer")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    worst = int(load[:, -1].argmax())
    text = (
        f"At the last step layer {worst} is the least even: its fullest expert has {load[worst, -1]:.2f} times the "
        f"mean. Experts that got no token: {int(dead[:, -1].sum())} of all layers at the last step, at most "
        f"{int(dead.sum(0).max())} at any step."
    )
    return f"<h3>Expert load</h3><p>{html.escape(text)}</p>" + figure(
        svg(drawing), "Layers count from 0. 1 is an even load. Every routed token counts, the padding of rows included."
    )


def _events(steps: list[dict[str, Any]], restarts: list[tuple[int, int]]) -> str:
    """A row for each restart and each skipped step, the newest where there are too many to show."""
    events = [(step, "restart", f"{again} steps were done again" if again else "") for step, again in restarts]
    for row in steps:
        if row.get("skipped"):
            documents = from_ranges(row["documents"])
            named = ", ".join(map(str, documents[:8])) + (f" and {len(documents) - 8} more" if documents[8:] else "")
            what = f"loss {row['loss']:.3f}, gradient norm {row['grad_norm']:.3f}; documents {named}"
            events.append((row["step"], "skipped as a spike", what))
    if not events:
        return ""
    events.sort()
    more = f"<p class=note>The last {MOST_EVENTS} of {len(events)}.</p>" if len(events) > MOST_EVENTS else ""
    rows = [(f"{step:,}", what, text) for step, what, text in events[-MOST_EVENTS:]]
    return "<h3>What happened</h3>" + more + table(("step", "", ""), rows, numbers={0})
