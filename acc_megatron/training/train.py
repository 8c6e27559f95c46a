"""The training loop: set up, resume, step, log, save."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch.distributed as dist

from acc_megatron.common.atomic_files import write_json
from acc_megatron.config import Config, to_dict
from acc_megatron.errors import AccError, CheckpointError, DataError, NonFiniteStep
from acc_megatron.mesh.deterministic import deterministic
from acc_megatron.mesh.torchrun_environment import say
from acc_megatron.observe.library_warnings import LIBRARY_WARNINGS
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.observe.profile import StepProfiler
from acc_megatron.resilience.ended_run import Abandoned, leave
from acc_megatron.resilience.nvrx import ResiliencyExtension
from acc_megatron.resilience.stop import StopRequest, cause_name
from acc_megatron.resilience.watchdog import Watchdog
from acc_megatron.training.resume import restore, save, settle
from acc_megatron.training.screen import TrainingScreen
from acc_megatron.training.step import train_step
from acc_megatron.training.trainer import BestStep, Trainer, build_trainer
from acc_megatron.training.validation import HeldOutLoss, validate


class TrainResult(TypedDict):
    """The result of a run, as `--json` prints it."""

    steps: int  # done since the start of the run, restarts included
    loss_first: float | None  # of the first step since the last restart; None if there was no step
    loss_last: float | None
    skipped_steps: int
    world_size: int
    layout: str
    checkpoint: str
    stopped_by: str | None  # cause and rank of a stop request


def train(config: Config) -> TrainResult:
    """Train until the end, `train.max_steps` or a stop request; resumes if the run folder has a checkpoint.

    Runs under torchrun or in one process. Raises ConfigError, DataError or CheckpointError before the first step;
    after that NonFiniteStep, TooManySpikes or DataError, with all completed steps saved.
    """
    parallel, settings, run_dir = config.parallel, config.train, Path(config.train.run_dir)
    with (
        deterministic(settings.deterministic),
        process_groups(parallel, seed=settings.seed, timeout_seconds=settings.process_timeout_seconds) as layout,
        StopRequest(run_dir) as stop,
    ):
        LIBRARY_WARNINGS.write_to(run_dir / "warnings" / f"rank_{dist.get_rank():05d}.log")
        trainer = build_trainer(config, layout)
        trainer.stop = stop
        with Watchdog(run_dir, config.resilience, trainer.progress), trainer.read_ahead:
            losses, folder = _run(trainer)
        if dist.get_rank() == 0:
            stop.clear_file()
    by = trainer.stopped_by
    return {
        "steps": trainer.step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "skipped_steps": len(trainer.rule.skipped),
        "world_size": layout.world,
        "layout": str(layout),
        "checkpoint": str(folder),
        "stopped_by": f"{cause_name(by[1])} on rank {by[0]}" if by else None,
    }


def _run(trainer: Trainer) -> tuple[list[float], Path | None]:
    """Resume and train; returns the losses of the steps done here, and the newest checkpoint."""
    config, run_dir = trainer.config, Path(trainer.config.train.run_dir)
    last_step = trainer.last_step
    losses: list[float] = []
    folder = restore(trainer)
    if dist.get_rank() == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(run_dir / "config.json", to_dict(config))
    screen = TrainingScreen(trainer, last_step)
    screen.header()
    profiler = StepProfiler(
        config.profile,
        run_dir / "profile",
        dist.get_rank(),
        trainer.times,
        writing=lambda step: trainer.progress.enter("profile", step),
    )
    with (
        MetricsLog(run_dir, dist.get_rank() == 0, first_step=trainer.step + 1, config=config) as log,
        ResiliencyExtension() as extension,
    ):
        saved_step = trainer.step
        try:
            while trainer.step < last_step and not trainer.stopped_by:
                with extension.section(), profiler.step(trainer.step + 1):
                    result = train_step(trainer)
                extension.after_step()
                losses.append(result.loss)
                held_out, is_best = _validate(trainer, last_step)
                log.step(trainer.step, **result.log_values(), **held_out.log_values())
                screen.step(result)
                trainer.rule.check(trainer.step)
                settle(trainer)
                if trainer.step == last_step or trainer.stopped_by or is_best or _is_time_to_save(trainer):
                    trainer.progress.enter("checkpoint", trainer.step)
                    with trainer.times.section("save"):
                        folder, saved_step = save(trainer), trainer.step
            settle(trainer, wait=True)
        except Abandoned as abandoned:
            raise leave(_save_completed_steps(trainer, abandoned.error, saved_step)) from None
        trainer.progress.enter("end", trainer.step)
    screen.end(folder)
    return losses, folder


def _save_completed_steps(trainer: Trainer, error: AccError, saved_step: int) -> AccError:
    """Save the steps since the last checkpoint; returns the error, extended if the save fails too."""
    trainer.progress.enter("checkpoint", trainer.step)
    try:
        if saved_step != trainer.step:
            save(trainer)
        settle(trainer, wait=True)
    except CheckpointError as problem:
        return type(error)(f"{error}. In addition, step {trainer.step} could not be saved: {problem}")
    return error


def _validate(trainer: Trainer, last_step: int) -> tuple[HeldOutLoss, bool]:
    """Measure the held-out loss if it is time to; also return whether it is the lowest so far."""
    every = trainer.config.validation.every_steps
    if every is None or (trainer.step % every and trainer.step != last_step):
        return HeldOutLoss(), False
    try:
        found = validate(trainer)
    except DataError as error:
        raise Abandoned(error) from None
    trainer.times.take()  # these are not sections of a step
    if found.loss is None or not math.isfinite(found.loss):
        raise Abandoned(NonFiniteStep(f"the held-out loss of step {trainer.step} is {found.loss}: {found.by_agent}"))
    say(f"step {trainer.step:>5}  held-out loss {found.loss:.4f}")
    best = trainer.best
    if is_best := best is None or found.loss < best.loss:
        best = trainer.best = BestStep(trainer.step, found.loss)
    return replace(found, best_step=best.step), is_best


def _is_time_to_save(trainer: Trainer) -> bool:
    every = trainer.config.train.save_every_steps
    return every is not None and trainer.step % every == 0
