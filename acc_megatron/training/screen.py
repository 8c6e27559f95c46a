"""What a person sees of a run on rank 0's stderr: a header, a live line or a line every N steps, and what was made."""

import statistics
import time
from collections import deque
from pathlib import Path

from acc_megatron.common.live_line import LiveLine, clock
from acc_megatron.mesh.torchrun_environment import is_rank_zero
from acc_megatron.model.parameter_count import num_parameters, short_count
from acc_megatron.training.step_result import StepResult
from acc_megatron.training.trainer import Trainer

RECENT_STEPS = 20  # the time left follows from the median of these


class TrainingScreen:
    """Prints on rank 0; on other ranks it has no effect. `last_step` is the step at which this start ends."""

    def __init__(self, trainer: Trainer, last_step: int) -> None:
        self._trainer, self._last_step = trainer, last_step
        self._line = LiveLine() if is_rank_zero() else None
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._started = time.monotonic()
        self._first_step = trainer.step + 1

    def header(self) -> None:
        """Print what is trained, on what, how, and where it is written."""
        if self._line is None:
            return
        for line in header_lines(self._trainer, self._last_step):
            self._line.keep(line)

    def step(self, result: StepResult) -> None:
        """Show one step: every step on a terminal; elsewhere the first, the last and every N-th."""
        if self._line is None:
            return
        self._seconds.append(result.seconds)
        number, every = self._trainer.step, self._trainer.config.observe.print_every_steps
        if self._line.is_terminal and number != self._last_step:
            self._line.show(self._step_line(result))
        elif number in (self._first_step, self._last_step) or number % every == 0:
            self._line.keep(self._step_line(result))

    def end(self, folder: Path | None) -> None:
        """Print how far the run came, what it made and the next command."""
        if self._line is None:
            return
        trainer, run_dir = self._trainer, self._trainer.config.train.run_dir
        num_done = trainer.step - self._first_step + 1
        if num_done:
            elapsed = clock(time.monotonic() - self._started)
            self._line.keep(f"trained {num_done:,} steps in {elapsed}; the checkpoint is {folder}")
        if trainer.step == trainer.num_steps:
            self._line.keep(f"Next: acc-megatron export {run_dir} --out FOLDER; acc-megatron report {run_dir}")
        elif trainer.stopped_by:
            self._line.keep(f"stopped; the same command resumes at step {trainer.step + 1}")
        else:
            self._line.keep(
                f"stopped at train.max_steps; the same command with a larger one resumes at step {trainer.step + 1} "
                f"of {trainer.num_steps}"
            )

    def _step_line(self, result: StepResult) -> str:
        metrics, trainer = result.metrics, self._trainer
        rate = float(metrics["tokens_per_second"]) / trainer.layout.world  # type: ignore[arg-type]
        parts = [
            f"step {trainer.step:>5} of {self._last_step}",
            f"loss {result.loss:.4f}",
            f"{self._left(self._last_step)} left",
            f"{rate:,.0f} tokens/s/GPU",
            f"{metrics['memory_peak_bytes'] / 2**30:.1f} GiB",  # type: ignore[operator]
            f"grad norm {result.grad_norm:.3f}",
            f"lr {result.learning_rate:.2e}",
        ]
        if metrics["peak_share"]:
            parts.insert(4, f"MFU {metrics['peak_share']:.1%}")
        every = trainer.config.train.save_every_steps
        if every:
            parts.insert(3, f"save in {self._left(min(self._last_step, -(-(trainer.step + 1) // every) * every))}")
        if result.skipped:
            parts.insert(1, "skipped as a spike")
        return "  ".join(parts)

    def _left(self, step: int) -> str:
        return clock(statistics.median(self._seconds) * (step - self._trainer.step))


def header_lines(trainer: Trainer, last_step: int) -> list[str]:
    """The header of a run, at most eight lines."""
    config, loader, run_dir = trainer.config, trainer.loader, trainer.config.train.run_dir
    model, settings, dataset = config.model, config.train, loader.dataset
    tokens = int(dataset.lengths.sum())
    supervised = int(dataset.samples["supervised_tokens"].to_numpy().sum())
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs != 1 else ''}"
    every = f"every {settings.save_every_steps} steps and at the end" if settings.save_every_steps else "at the end"
    return [
        f"model      {config.name}: {model.family}, {short_count(num_parameters(model))} parameters",
        f"data       {dataset.path}: {sum(map(len, loader.rows)):,} documents in {len(loader.rows):,} rows of "
        f"{loader.seq_length_tokens:,} tokens, {supervised / max(1, tokens):.1%} of the tokens supervised",
        f"layout     {trainer.layout} on {trainer.layout.world} processes",
        f"precision  {settings.precision}, optimizer {config.optimizer.kind}, recompute {config.memory.recompute}",
        f"steps      {trainer.step + 1:,} to {last_step:,} of {trainer.num_steps:,} ({epochs}), "
        f"{settings.global_batch_rows} rows a step",
        f"logs       {run_dir}/steps.jsonl, tensorboard, and warnings of libraries in warnings",
        f"saves      {run_dir}/checkpoints, {every}",
    ]
