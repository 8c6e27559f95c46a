"""The training loop on megatron-core, read top to bottom: set up, resume, step, log, save."""

from pathlib import Path
from typing import Any

from acc_megatron.distributed import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch.distributed as dist

from acc_megatron.config import Config, to_dict
from acc_megatron.data_tools.atomic import write_json
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.ranks import say
from acc_megatron.resume import restore, save, settle
from acc_megatron.step import train_step
from acc_megatron.trainer import Trainer, build_trainer


def train(config: Config) -> dict[str, Any]:
    """Train to the end, or to `train.max_steps`; resumes from the run folder's latest checkpoint by itself.

    Runs under torchrun or alone. Returns steps, first and last loss and the checkpoint's path. Raises
    ConfigError, DataError or CheckpointError before the first step.
    """
    parallel, settings = config.parallel, config.train
    with process_groups(parallel, seed=settings.seed, timeout_seconds=settings.process_timeout_seconds) as layout:
        trainer = build_trainer(config, layout)
        last_step = min(trainer.num_steps, settings.max_steps or trainer.num_steps)
        losses: list[float] = []
        folder = restore(trainer)
        if dist.get_rank() == 0:
            Path(settings.run_dir).mkdir(parents=True, exist_ok=True)
            write_json(Path(settings.run_dir) / "config.json", to_dict(config))
        with MetricsLog(Path(settings.run_dir), active=dist.get_rank() == 0) as log:
            while trainer.step < last_step:
                values = train_step(trainer)
                losses.append(values["loss"])
                log.step(trainer.step, **values)
                _print_step(trainer, values, last_step)
                settle(trainer)
                if trainer.step == last_step or _is_time_to_save(trainer):
                    folder = save(trainer)
            settle(trainer, wait=True)
    return {
        "steps": trainer.step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "world_size": layout.world,
        "layout": str(layout),
        "checkpoint": str(folder),
    }


def _is_time_to_save(trainer: Trainer) -> bool:
    every = trainer.config.train.save_every_steps
    return every is not None and trainer.step % every == 0


def _print_step(trainer: Trainer, values: dict[str, Any], last_step: int) -> None:
    say(
        f"step {trainer.step:>5} of {last_step}  loss {values['loss']:.4f}  grad norm {values['grad_norm']:.3f}  "
        f"lr {values['learning_rate']:.2e}  {values['tokens_per_second']:,.0f} tokens/s"
    )
