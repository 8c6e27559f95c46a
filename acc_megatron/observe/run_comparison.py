"""Training runs next to each other: what their settings and results have in common and what not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from acc_megatron.common.html_page import Figure, Table, matplotlib_text, svg
from acc_megatron.common.typed_settings import flatten
from acc_megatron.errors import ConfigError, DataError
from acc_megatron.observe.metrics import STEPS_FILE, LoggedStep, read_restarts, read_steps
from acc_megatron.observe.run_section import SMOOTHED_STEPS, smoothed

COLOURS = ("#1f5fa8", "#c8641b", "#3b8a4f", "#7a4ea3", "#8a6d3b", "#555555")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run under its name on the page."""

    name: str
    folder: Path
    steps: list[LoggedStep]

    def loss_at(self, step: int) -> float:
        """The mean loss of the last steps up to `step`, without skipped ones; at most SMOOTHED_STEPS of them."""
        losses = [row["loss"] for row in self.steps if row["step"] <= step and not row.get("skipped")]
        return float(np.mean(losses[-SMOOTHED_STEPS:])) if losses else float("nan")


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What the page shows; `settings` is None if the settings are the same."""

    names: list[str]
    sentence: str
    facts: Table
    settings: Table | None
    curves: Figure


def compare_runs(folders: Sequence[Path]) -> RunComparison:
    """Read and compare runs. Raises DataError for a folder without logged steps, ConfigError for a run given twice."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("the same run is given twice: give different runs to compare")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = [ComparedRun(name, folder, _logged_steps(folder)) for name, folder in zip(names, folders, strict=True)]
    caption = (
        f"Thick lines are means over {SMOOTHED_STEPS} steps, dots are the held-out loss. Loss is per supervised token."
    )
    return RunComparison(
        names=names,
        sentence=_sentence(runs),
        facts=_facts(runs),
        settings=_settings(runs),
        curves=Figure(_curves(runs), caption),
    )


def run_folder(folder: Path) -> Path | None:
    """The folder with the steps: `folder`, or `run` in it; None if there are none."""
    return next((path for path in (folder, folder / "run") if (path / STEPS_FILE).is_file()), None)


def _logged_steps(folder: Path) -> list[LoggedStep]:
    found = run_folder(folder)
    if found is None:
        raise DataError(f"{folder} is not a training run: it has no {STEPS_FILE}, and several folders mean runs")
    steps = read_steps(found)
    if not steps:
        raise DataError(f"{folder} has logged no step yet: compare it when it has")
    return steps


def _sentence(runs: Sequence[ComparedRun]) -> str:
    """Compare the second run with the first at the last step that both reached."""
    first, second = runs[:2]
    step = min(first.steps[-1]["step"], second.steps[-1]["step"])
    before, after = first.loss_at(step), second.loss_at(step)
    rates = [float(np.median([row["tokens_per_second"] for row in run.steps])) for run in (first, second)]
    direction = "lower than" if after < before else "higher than" if after > before else "the same as"
    size = f"{abs(after - before):.4f} {direction}" if after != before else direction
    ratio = rates[1] / max(rates[0], 1e-9)
    speed = (
        "Both make the same tokens per second."
        if abs(ratio - 1) < 0.005
        else f"{second.name} makes {ratio:.2f} times the tokens per second."
    )
    return (
        f"At step {step:,}, the last that both runs reached, the loss of {second.name} is {after:.4f}, {size} that of "
        f"{first.name} ({before:.4f}; means over the last {min(step, SMOOTHED_STEPS)} steps). {speed}"
    )


def _facts(runs: Sequence[ComparedRun]) -> Table:
    common = min(run.steps[-1]["step"] for run in runs)
    lines: tuple[tuple[str, Callable[[ComparedRun], str]], ...] = (
        ("steps", lambda run: f"{len(run.steps):,}"),
        ("layout", lambda run: run.steps[-1]["layout"]),
        (f"loss to step {common:,}", lambda run: f"{run.loss_at(common):.4f}"),
        ("loss to the last step", lambda run: f"{run.loss_at(run.steps[-1]['step']):.4f}"),
        ("lowest held-out loss", _best_held_out),
        ("tokens/s, median", lambda run: _median(run, "tokens_per_second", "{:,.0f}")),
        ("seconds a step, median", lambda run: _median(run, "seconds", "{:.3f}")),
        ("share of peak, median", lambda run: _median(run, "peak_share", "{:.1%}")),
        ("peak memory", lambda run: _peak_memory(run)),
        ("restarts", lambda run: f"{len(read_restarts(run_folder(run.folder) or run.folder)):,}"),
        ("skipped steps", lambda run: f"{sum(bool(row.get('skipped')) for row in run.steps):,}"),
    )
    rows = [(name, *(value(run) for run in runs)) for name, value in lines]
    shown = [row for row in rows if set(row[1:]) != {"–"}]
    return Table(("", *(run.name for run in runs)), shown, range(1, len(runs) + 1))


def _median(run: ComparedRun, key: str, form: str) -> str:
    values = [value for row in run.steps if (value := dict(row).get(key)) is not None]
    return form.format(float(np.median(np.array(values, np.float64)))) if values else "–"


def _best_held_out(run: ComparedRun) -> str:
    found = [(loss, row["step"]) for row in run.steps if (loss := row.get("validation_loss")) is not None]
    return "{:.4f} at step {:,}".format(*min(found)) if found else "–"


def _peak_memory(run: ComparedRun) -> str:
    found = [row["memory_peak_bytes"] for row in run.steps if "memory_peak_bytes" in row]
    return f"{max(found) / 2**30:.2f} GiB" if found else "–"


def _settings(runs: Sequence[ComparedRun]) -> Table | None:
    """The settings that differ, from the config.json of each run."""
    files = [(run_folder(run.folder) or run.folder) / "config.json" for run in runs]
    if not all(file.is_file() for file in files):
        return None
    trees = [flatten(json.loads(file.read_bytes())) for file in files]
    keys = [key for key in dict.fromkeys(key for tree in trees for key in tree) if key != "train.run_dir"]
    rows = [
        (key, *(json.dumps(tree.get(key)) for tree in trees))
        for key in keys
        if len({json.dumps(tree.get(key)) for tree in trees}) > 1
    ]
    return Table(("setting", *(run.name for run in runs)), rows) if rows else None


def _curves(runs: Sequence[ComparedRun]) -> Markup:
    import matplotlib.figure
    from matplotlib.ticker import MaxNLocator

    drawing = matplotlib.figure.Figure(figsize=(9.6, 6.0), layout="constrained")
    axes = drawing.subplots(2, 2, sharex=True)
    panels = (
        ("loss", "loss"),
        ("grad_norm", "gradient norm"),
        ("tokens_per_second", "tokens/s"),
        ("seconds", "seconds a step"),
    )
    for axis, (key, title) in zip(axes.flat, panels, strict=True):
        for number, run in enumerate(runs):
            colour = COLOURS[number % len(COLOURS)]
            rows = [row for row in run.steps if dict(row).get(key) is not None]
            steps = np.array([row["step"] for row in rows])
            values = np.array([dict(row)[key] for row in rows], np.float64)
            axis.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4)
            axis.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=matplotlib_text(run.name))
            held_out = [row for row in run.steps if row.get("validation_loss") is not None] if key == "loss" else []
            axis.plot(
                [row["step"] for row in held_out], [row["validation_loss"] for row in held_out], "o", color=colour
            )
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if key in ("tokens_per_second", "seconds"):
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes[0, 0].legend(frameon=False, fontsize=9)
    for axis in axes[1]:
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(drawing)
