"""The held-out loss of a run: per supervised token over all ranks, in total and by agent kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from acc_megatron.data.loader import EMPTY_ROW, Loader, PackedRow
from acc_megatron.errors import DataError
from acc_megatron.training.forward_backward import forward_backward
from acc_megatron.training.trainer import Trainer


@dataclass(frozen=True)
class HeldOutLoss:
    """Losses per supervised token; None and empty in a step without validation."""

    loss: float | None = None
    by_agent: dict[str, float] | None = None
    best_step: int | None = None  # the step with the lowest loss so far; its checkpoint is `best`

    def log_values(self) -> dict[str, Any]:
        """Return the values by the names they have in steps.jsonl."""
        return {
            "validation_loss": self.loss,
            "validation_loss_by_agent": self.by_agent or {},
            "validation_best_step": self.best_step,
        }


def validate(trainer: Trainer) -> HeldOutLoss:
    """Measure the held-out loss without changing anything of the training; collective, equal on every rank.

    Sums of losses are divided by numbers of supervised tokens at the end, so no row or rank weighs more than its
    tokens. Raises DataError on every rank if one cannot read its rows.
    """
    trainer.progress.enter("validation", trainer.step)
    sums: dict[str, torch.Tensor] = {}
    with _evaluating(trainer), torch.no_grad():
        for agent, loader in trainer.held_out.items():
            parts = [forward_backward(trainer, rows, forward_only=True)[0] for rows in _batches(trainer, loader)]
            sums[agent] = torch.stack(parts).sum(0)
    total = torch.stack(list(sums.values())).sum(0)
    return HeldOutLoss(_mean(total), {agent: _mean(part) for agent, part in sums.items()})


def _mean(sums: torch.Tensor) -> float:
    loss, count = sums.tolist()
    return loss / max(1.0, count)


def _batches(trainer: Trainer, loader: Loader) -> Iterator[list[PackedRow]]:
    """Yield this rank's rows of batches as large as those of training, the last one filled with empty rows."""
    size = trainer.config.train.global_batch_rows
    numbers = list(range(len(loader.rows)))
    data, context = parallel_state.get_data_parallel_rank(), parallel_state.get_context_parallel_rank()
    for first in range(0, len(numbers), size):
        batch = numbers[first : first + size]
        batch += [EMPTY_ROW] * (size - len(batch))
        failure: DataError | None = None
        rows: list[PackedRow] = []
        try:
            rows = loader.rank_rows(batch, data, context)
        except DataError as error:
            failure = error
        failed = torch.tensor([int(failure is not None)], device=torch.cuda.current_device())
        dist.all_reduce(failed, op=dist.ReduceOp.MAX)
        if failed.item():
            raise failure or DataError("another rank cannot read the held-out documents: its error has the file")
        yield rows


@contextmanager
def _evaluating(trainer: Trainer) -> Iterator[None]:
    """Turn off what only training needs; weights that are still being gathered are complete inside."""
    gathers_late = trainer.config.parallel.overlap_param_gather
    for chunk in trainer.chunks:
        if gathers_late:
            chunk.disable_forward_pre_hook(param_sync=True)  # type: ignore[operator]
        chunk.eval()
    try:
        yield
    finally:
        for chunk in trainer.chunks:
            chunk.train()
            if gathers_late:
                chunk.enable_forward_pre_hook()  # type: ignore[operator]
