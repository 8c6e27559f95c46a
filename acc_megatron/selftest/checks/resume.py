"""Save, kill, resume and reshard: a run that is really killed continues with the losses of one that was not."""

import dataclasses
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

from acc_megatron.common.toml_text import write_toml
from acc_megatron.mesh.process_groups import process_groups  # noqa: F401 - first: makes megatron run without CUDA

# isort: split
from acc_megatron.checkpoint import locate
from acc_megatron.config import Config, ParallelConfig
from acc_megatron.observe.metrics import STEPS_FILE, LoggedStep, read_steps
from acc_megatron.selftest.accuracy import require
from acc_megatron.selftest.check import CheckFailed, Found
from acc_megatron.selftest.layouts import all_layouts, fitting
from acc_megatron.selftest.place import Place
from acc_megatron.selftest.tiny_run import on_gpu, tiny_config, with_train
from acc_megatron.training.train import train

SAVE_EVERY_STEPS = 2
KILL_AFTER_STEPS = 3
STEPS_AFTER_RESUME = 2
# the run is killed long before its last step, however fast it is
NUM_STEPS = 2000
CHILD_SECONDS = 200
# On CPU a resumed run has the same bits. On GPUs attention sums its gradients in any order.
SAME_LAYOUT_LIMITS = {"float32": 0.0, "bfloat16": 1e-2}
OTHER_LAYOUT_LIMITS = {"float32": 1e-5, "bfloat16": 1e-2}


class Resume:
    """AdamW on all ranks, killed with SIGKILL after a save, resumed in the same and then in another layout."""

    name = "resume"
    summary = "a killed run resumes with the losses of an uninterrupted one, also in another layout"
    limit_seconds = 600.0
    advice = "read work/resume/child_*.log next to the logs; every node must see --out"

    def run(self, place: Place) -> Found:
        """Kill a run of child processes, then resume it here and compare it with an uninterrupted run."""
        base = tiny_config(place, "resume", batch_rows=math.lcm(4, place.world), num_steps=NUM_STEPS)
        expert = 2 if place.world % 2 == 0 else 1
        config = dataclasses.replace(base, parallel=ParallelConfig(expert=expert))
        run_dir = Path(config.train.run_dir)
        _kill_a_run(place, with_train(config, save_every_steps=SAVE_EVERY_STEPS), run_dir)
        saved = place.first_rank_says("saved step", lambda: str(_saved_step(run_dir)))
        last = int(saved) + STEPS_AFTER_RESUME
        _train(place, with_train(config, max_steps=last))
        other = _other_layout(place, config)
        end = last + STEPS_AFTER_RESUME if other else last
        if other is not None:
            _train(place, with_train(dataclasses.replace(config, parallel=other), max_steps=end))
        never_killed = run_dir.with_name("uninterrupted")
        _train(place, with_train(config, run_dir=str(never_killed), max_steps=end))
        figures: dict[str, float] = {"killed after step": int(saved)}
        if place.rank == 0:
            _compare(read_steps(run_dir), read_steps(never_killed), last, config.train.precision, figures)
        return Found(figures, _layouts(run_dir) if place.rank == 0 else "")


def _train(place: Place, config: Config) -> None:
    place.meet()
    train(config)


def _kill_a_run(place: Place, config: Config, run_dir: Path) -> None:
    """Start this rank's process of a run, and kill it when the run has logged some steps."""
    recipe = place.folder / "work" / "resume" / f"recipe_{place.rank}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(f"{write_toml(config)}\n", encoding="utf-8")
    log, steps = recipe.with_name(f"child_{place.rank}.log"), run_dir / STEPS_FILE
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "acc_megatron", "train", str(recipe)],
            stdout=output, stderr=output, env=place.child_environment(),
        )  # fmt: skip
        try:
            until = time.monotonic() + CHILD_SECONDS
            while not (steps.is_file() and steps.read_text().count("\n") >= KILL_AFTER_STEPS):
                code = child.poll()
                if code is not None:
                    last = (log.read_text().strip().splitlines() or ["(empty log)"])[-1]
                    raise CheckFailed(f"training ended with exit code {code} before it was killed: {last[:300]}")
                if time.monotonic() > until:
                    raise CheckFailed(f"training took no {KILL_AFTER_STEPS} steps in {CHILD_SECONDS} s; see {log}")
                time.sleep(0.02)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()


def _layouts(run_dir: Path) -> str:
    """Return the layouts of the run in the order in which it had them."""
    return ", then ".join(dict.fromkeys(row["layout"] for row in read_steps(run_dir)))


def _saved_step(run_dir: Path) -> int:
    folder = locate.latest(run_dir / "checkpoints")
    if folder is None:
        raise CheckFailed(f"no checkpoint in {run_dir / 'checkpoints'} although the run saved every second step")
    return int(locate.read_state(folder)["step"])


def _other_layout(place: Place, config: Config) -> ParallelConfig | None:
    """Return the layout with the most axes that fits and differs from the run's."""
    options = [layout for layout in all_layouts(place.world) if not layout.is_sharded]
    accepted = fitting(options, config, place.world, has_gpu=on_gpu())
    others = [layout.parallel for layout in accepted if layout.parallel != config.parallel]
    splits = [parallel for parallel in others if parallel.tensor > 1] or others
    return splits[-1] if splits else None


def _compare(
    resumed: list[LoggedStep], uninterrupted: list[LoggedStep], last: int, precision: str, figures: dict[str, float]
) -> None:
    """Compare the loss of every step; after step `last` the resumed run has another layout."""
    numbers = [row["step"] for row in resumed]
    if numbers != [row["step"] for row in uninterrupted]:
        raise CheckFailed(f"the resumed run has steps {numbers[:3]}...{numbers[-3:]}, not 1 to {len(uninterrupted)}")
    for row, truth in zip(resumed, uninterrupted, strict=True):
        difference = abs(row["loss"] / truth["loss"] - 1)
        same = row["step"] <= last
        limits = SAME_LAYOUT_LIMITS if same else OTHER_LAYOUT_LIMITS
        name = "loss after resume" if same else "loss after reshard"
        require(name, difference, limits[precision], f"step {row['step']}", figures)
