"""The training loop on megatron-core, read top to bottom: set up, resume, step, log, save."""

from pathlib import Path
from typing import Any

from acc_megatron.distributed import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch.distributed as dist

from acc_megatron.config import Config, to_dict
from acc_megatron.data_tools.atomic import write_json
from acc_megatron.errors import AccError, CheckpointError
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.ranks import say
from acc_megatron.resilience.abandoned import Abandoned, leave
from acc_megatron.resilience.nvrx import ResiliencyExtension
from acc_megatron.resilience.stop import StopRequest, cause_name
from acc_megatron.resilience.watchdog import Watchdog
from acc_megatron.resume import restore, save, settle
from acc_megatron.step import train_step
from acc_megatron.trainer import Trainer, build_trainer


def train(config: Config) -> dict[str, Any]:
    """Train to the end, or to `train.max_steps`, or until it is asked to stop; resumes its run folder by itself.

    Runs under torchrun or alone. Returns steps, first and last loss, the checkpoint's path, and who stopped it.
    Raises ConfigError, DataError or CheckpointError before the first step; after that NonFiniteStep, TooManySpikes or
    DataError, with everything learned so far saved.
    """
    parallel, settings, run_dir = config.parallel, config.train, Path(config.train.run_dir)
    with (
        process_groups(parallel, seed=settings.seed, timeout_seconds=settings.process_timeout_seconds) as layout,
        StopRequest(run_dir) as stop,
    ):
        trainer = build_trainer(config, layout)
        trainer.stop = stop
        with Watchdog(run_dir, config.resilience, trainer.progress):
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
    """Resume and step; the losses of the steps done here, and the newest checkpoint."""
    config, run_dir = trainer.config, Path(trainer.config.train.run_dir)
    last_step = min(trainer.num_steps, config.train.max_steps or trainer.num_steps)
    losses: list[float] = []
    folder = restore(trainer)
    if dist.get_rank() == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(run_dir / "config.json", to_dict(config))
    with (
        MetricsLog(run_dir, dist.get_rank() == 0, first_step=trainer.step + 1, config=config) as log,
        ResiliencyExtension() as extension,
    ):
        saved_step = trainer.step
        try:
            while trainer.step < last_step and not trainer.stopped_by:
                with extension.section():
                    values = train_step(trainer)
                extension.after_step()
                losses.append(values["loss"])
                log.step(trainer.step, **values)
                _print_step(trainer, values, last_step)
                trainer.rule.check(trainer.step)
                settle(trainer)
                if trainer.step == last_step or trainer.stopped_by or _is_time_to_save(trainer):
                    trainer.progress.enter("checkpoint", trainer.step)
                    folder, saved_step = save(trainer), trainer.step
            settle(trainer, wait=True)
        except Abandoned as abandoned:
            raise leave(_save_and_say(trainer, abandoned.error, saved_step)) from None
        trainer.progress.enter("end", trainer.step)
    return losses, folder


def _save_and_say(trainer: Trainer, error: AccError, saved_step: int) -> AccError:
    """Save what was learned since the last checkpoint; the error, which says so too when that fails."""
    trainer.progress.enter("checkpoint", trainer.step)
    try:
        if saved_step != trainer.step:
            save(trainer)
        settle(trainer, wait=True)
    except CheckpointError as problem:
        return type(error)(f"{error}; but step {trainer.step} could not be saved: {problem}")
    return error


def _is_time_to_save(trainer: Trainer) -> bool:
    every = trainer.config.train.save_every_steps
    return every is not None and trainer.step % every == 0


def _print_step(trainer: Trainer, values: dict[str, Any], last_step: int) -> None:
    say(
        f"step {trainer.step:>5} of {last_step}  loss {values['loss']:.4f}  grad norm {values['grad_norm']:.3f}  "
        f"lr {values['learning_rate']:.2e}  {values['tokens_per_second']:,.0f} tokens/s"
    )
