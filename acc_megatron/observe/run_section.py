"""The part of the report about a training run: curves, expert load, restarts and skipped steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from acc_megatron.common.html_page import Figure, Part, Strip, Table, svg
from acc_megatron.observe.metrics import LoggedStep, Restart, read_restarts, read_steps
from acc_megatron.observe.usage import from_ranges

BLUE, GREY, RED = "#1f5fa8", "#8a8a8a", "#b02a2a"
MAX_EVENTS = 50
SMOOTHED_STEPS = 20


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """How evenly the experts of each layer are used, and the last step in words."""

    text: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Events:
    """The newest restarts and skipped steps; `num_left_out` older ones are not in the table."""

    table: Table
    num_left_out: int


@dataclass(frozen=True, slots=True)
class RunSection:
    """What the page shows of a run; everything is None while no step is logged."""

    facts: Table | None = None
    curves: Figure | None = None
    sections: Strip | None = None
    expert_load: ExpertLoad | None = None
    events: Events | None = None


def run_section(run_dir: Path) -> RunSection:
    """Read the steps of a run folder and draw them."""
    steps, restarts = read_steps(run_dir), read_restarts(run_dir)
    if not steps:
        return RunSection()
    marks = (
        ("Dashed lines are restarts.", bool(restarts)),
        ("Triangles are skipped steps.", any(row.get("skipped") for row in steps)),
        ("Grey dots are the held-out loss, the ring its lowest.", any(map(_is_validated, steps))),
    )
    caption = " ".join(["Loss is per supervised token.", *(text for text, is_drawn in marks if is_drawn)])
    return RunSection(
        facts=_facts(steps, restarts),
        curves=Figure(_curves(steps, restarts), caption),
        sections=_sections(steps),
        expert_load=_expert_load(steps, restarts) if steps[0].get("expert_load_max_over_mean") else None,
        events=_events(steps, restarts),
    )


def _facts(steps: list[LoggedStep], restarts: list[Restart]) -> Table:
    first, last = steps[0], steps[-1]
    rate = float(np.median([row["tokens_per_second"] for row in steps]))
    facts = [
        ("Steps", f"{len(steps):,}"),
        ("Loss", f"{first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step {last['step']}"),
        ("Throughput", f"median {rate:,.0f} tokens/s in layout {last['layout']}"),
    ]
    validated = [row for row in steps if _is_validated(row)]
    if validated:
        facts.append(("Held-out loss", _held_out(validated)))
    if "supervised_tokens" in last:
        tokens = sum(row["tokens"] for row in steps)
        supervised = sum(row["supervised_tokens"] for row in steps)
        facts.append(("Tokens", f"{tokens:,} including padding, {supervised:,} of them supervised"))
    if "model_flops_per_second" in last:
        flops = float(np.median([row["model_flops_per_second"] for row in steps]))
        shares = [row["peak_share"] for row in steps if row["peak_share"]]
        share = f", {np.median(shares):.1%} of the devices' peak" if shares else "; the devices' peak is not known"
        facts.append(("Model FLOPs", f"median {flops / 1e12:,.3g} TFLOP/s{share}"))
        waited = sum(row["data_wait_seconds"] for row in steps) / sum(row["seconds"] for row in steps)
        facts.append(("Waiting for data", f"{waited:.2%} of the time, on the slowest rank"))
        peak = max(row["memory_peak_bytes"] for row in steps)
        facts.append(("Peak memory", f"{peak / 2**30:.2f} GiB on the rank that uses most"))
    repeated = sum(restart.num_repeated for restart in restarts)
    facts.append(("Restarts", f"{len(restarts)}, which repeated {_steps(repeated)}" if restarts else "none"))
    skipped = [row["step"] for row in steps if row.get("skipped")]
    facts.append(("Skipped steps", f"{len(skipped)}" if skipped else "none"))
    return Table(("", ""), facts)


def _sections(steps: list[LoggedStep]) -> Strip | None:
    """The median seconds of each section of a step on rank 0; None for a run that did not measure them."""
    colours = {"data": "distractor", "forward": "question", "backward": "reasoning", "optimizer": "evidence"}
    measured = [dict(row) for row in steps if "forward_seconds" in row]
    if not measured:
        return None
    parts = []
    for name in ("data", "forward", "backward", "reduction", "optimizer"):
        seconds = float(np.median(np.array([row[f"{name}_seconds"] for row in measured], np.float64)))
        parts.append(Part(name, seconds, f"{seconds:.3f} s", colours.get(name, "answer")))
    step = float(np.median(np.array([row["seconds"] for row in measured], np.float64)))
    return Strip(
        parts, f"Sections of a step of {step:.3f} s on rank 0, medians; the rest is agreement and logging.", step
    )


def _is_validated(step: LoggedStep) -> bool:
    return step.get("validation_loss") is not None


def _best(validated: list[LoggedStep]) -> LoggedStep:
    """The step with the lowest held-out loss, the first of equal ones: its checkpoint is `best`."""
    return min(validated, key=lambda row: row["validation_loss"] or 0.0)


def _held_out(validated: list[LoggedStep]) -> str:
    """The first, lowest and last held-out loss, and the last one of each agent kind."""
    first, last = validated[0], validated[-1]
    best = _best(validated)
    parts = ", ".join(f"{agent} {loss:.3f}" for agent, loss in last["validation_loss_by_agent"].items())
    return (
        f"{first['validation_loss']:.3f} at step {first['step']}, lowest {best['validation_loss']:.3f} at step "
        f"{best['step']}, {last['validation_loss']:.3f} at step {last['step']}"
        f"{f' ({parts})' if parts else ''}"
    )


def _steps(number: int) -> str:
    return f"{number:,} step{'s' if number != 1 else ''}"


def _curves(steps: list[LoggedStep], restarts: list[Restart]) -> Markup:
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
        values = np.array([dict(row)[key] for row in steps], np.float64)
        many = len(values) > 5 * SMOOTHED_STEPS and key != "learning_rate"
        axis.plot(numbers, values, color=BLUE, linewidth=0.6 if many else 1.3, alpha=0.45 if many else 1.0)
        if many:
            axis.plot(numbers, smoothed(np.where(skipped, np.nan, values)), color=BLUE, linewidth=1.6)
        if key in ("loss", "grad_norm") and skipped.any():
            axis.plot(numbers[skipped], values[skipped], "v", color=RED, markersize=7, label="skipped")
        validated = [row for row in steps if _is_validated(row)]
        if key == "loss" and validated:
            held_out = [row["validation_loss"] for row in validated]
            axis.plot([row["step"] for row in validated], held_out, "o-", color=GREY, markersize=3)
            best = _best(validated)
            axis.plot(best["step"], best["validation_loss"], "o", color=GREY, markersize=9, fillstyle="none")
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


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over `SMOOTHED_STEPS` neighbouring steps without the skipped ones."""
    half = SMOOTHED_STEPS // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nanmean(window) if np.isfinite(window).any() else np.nan for window in windows])


def _mark_restarts(axis: Any, restarts: Sequence[Restart], colour: str = GREY) -> None:
    """A dashed line before the first step of each restart."""
    for restart in restarts:
        axis.axvline(restart.first_step - 0.5, color=colour, linestyle="--", linewidth=1)


def _expert_load(steps: list[LoggedStep], restarts: list[Restart]) -> ExpertLoad:
    load = np.array([row["expert_load_max_over_mean"] for row in steps], np.float64).T  # [layers, steps]
    dead = np.array([row["dead_experts"] for row in steps], np.int64).T
    worst = int(load[:, -1].argmax())
    text = (
        f"At the last step the load is least even in layer {worst}: its busiest expert gets {load[worst, -1]:.2f} "
        f"times the mean number of tokens. Experts without a token, over all layers: {int(dead[:, -1].sum())} at "
        f"the last step, at most {int(dead.sum(0).max())} at any step."
    )
    caption = "Layers count from 0. 1 is an even load. Every routed token counts, including padding."
    return ExpertLoad(text, Figure(_expert_load_drawing(load, steps, restarts), caption))


def _expert_load_drawing(load: np.ndarray, steps: list[LoggedStep], restarts: list[Restart]) -> Markup:
    """`load` is `[layers, steps]`."""
    import matplotlib.figure
    from matplotlib.ticker import MaxNLocator

    layers = len(load)
    drawing = matplotlib.figure.Figure(figsize=(9.6, 1.9 + 0.22 * min(layers, 30)), layout="constrained")
    axis = drawing.subplots()
    bounds = (steps[0]["step"] - 0.5, steps[-1]["step"] + 0.5, layers - 0.5, -0.5)
    highest = max(2.0, float(load.max()))
    image = axis.imshow(
        load, aspect="auto", extent=bounds, cmap="viridis", vmin=1.0, vmax=highest, interpolation="nearest"
    )
    drawing.colorbar(image, ax=axis, label="busiest expert / mean", pad=0.01)
    _mark_restarts(axis, restarts, "white")
    axis.set_xlabel("step")
    axis.set_ylabel("layer")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(drawing)


def _events(steps: list[LoggedStep], restarts: list[Restart]) -> Events | None:
    """One table row for each restart and each skipped step."""
    events = [
        (
            restart.first_step,
            "restart",
            f"repeated {_steps(restart.num_repeated)}" if restart.num_repeated else "no step repeated",
        )
        for restart in restarts
    ]
    for row in steps:
        if row.get("skipped"):
            documents = from_ranges(row["documents"])
            named = ", ".join(map(str, documents[:8])) + (f" and {len(documents) - 8} more" if documents[8:] else "")
            what = f"loss {row['loss']:.3f}, gradient norm {row['grad_norm']:.3f}; documents {named}"
            events.append((row["step"], "skipped as a spike", what))
    if not events:
        return None
    rows = [(f"{step:,}", event, detail) for step, event, detail in sorted(events)[-MAX_EVENTS:]]
    return Events(Table(("step", "event", "details"), rows, {0}), max(0, len(events) - MAX_EVENTS))
