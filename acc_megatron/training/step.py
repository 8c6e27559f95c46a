"""One optimizer step over one global batch of packed rows."""

import math
import time
from functools import partial

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from acc_megatron.adapter.dropout import seed_dropout
from acc_megatron.data.loader import EMPTY_ROW
from acc_megatron.errors import DataError
from acc_megatron.observe.usage import as_ranges
from acc_megatron.resilience.bad_step import BadStep, broken_data, non_finite_step
from acc_megatron.resilience.ended_run import Abandoned
from acc_megatron.resilience.step_agreement import agree
from acc_megatron.training.forward_backward import forward_backward
from acc_megatron.training.optimizer import clip_and_update, set_learning_rate
from acc_megatron.training.schedules import learning_rate
from acc_megatron.training.step_metrics import FinishedStep, RankStep, measure, metric_values
from acc_megatron.training.step_result import StepResult
from acc_megatron.training.trainer import RankRows, Trainer


def train_step(trainer: Trainer) -> StepResult:
    """Run one optimizer step over one global batch; the result is the same on every rank.

    The ranks agree once, after loss and gradient norm are known and before any weight changes. A spike is skipped.
    Raises Abandoned on every rank, with the weights of the previous step, when a loss or a gradient is not finite or
    when a rank could not read its packed rows.
    """
    started = time.perf_counter()
    settings, number = trainer.config.train, trainer.step + 1
    trainer.progress.enter("data", number)
    reads_next = number < trainer.last_step
    with trainer.times.section("data"):
        read = trainer.read_ahead.take(trainer.step, partial(_read_rows, trainer), reads_next=reads_next)
    batch, problem = read.batch, read.problem
    rank_step = RankStep(trainer=trainer, batch=batch, data_seconds=time.perf_counter() - started)

    trainer.progress.enter("forward and backward", number)
    _prepare(trainer, batch)
    sums, parts = forward_backward(trainer, read.rows)

    trainer.progress.enter("gradient norm", number)
    trainer.optimizer.prepare_grads()
    grad_norm = float(trainer.optimizer.get_grad_norm())
    loss_sum, count = sums.tolist()
    loss = loss_sum / max(1.0, count)
    cause = trainer.stop.poll() if trainer.stop else 0
    raised = _flags(trainer, loss, grad_norm, is_broken=problem is not None, is_stopped=bool(cause))
    agreed = agree(raised, trainer.loads.take(), {"stop_cause": cause} | measure(rank_step))
    if "broken" in agreed.raised:
        raise Abandoned(broken_data(number, problem))
    if "non_finite" in agreed.raised:
        raise Abandoned(non_finite_step(trainer.rule, number, _observed_bad_step(trainer, batch, parts, grad_norm)))

    trainer.progress.enter("optimizer", number)
    skipped = "spike" in agreed.raised
    with trainer.times.section("optimizer"):
        updated = not skipped and clip_and_update(trainer.optimizer, grad_norm)
    trainer.rule.record(number, loss, grad_norm, skipped=skipped)
    trainer.step = number
    causes = enumerate(agreed.measured["stop_cause"])
    trainer.stopped_by = next(((rank, cause) for rank, cause in causes if cause), None)
    seconds = time.perf_counter() - started
    tokens = settings.global_batch_rows * trainer.config.data.seq_length_tokens
    finished = FinishedStep(
        **vars(rank_step),
        seconds=seconds,
        tokens=tokens,
        measured=agreed.measured,
        expert_tokens=agreed.totals,
        section_seconds=trainer.times.take(),
    )
    return StepResult(
        loss=loss,
        supervised_tokens=round(count),
        tokens=tokens,
        documents=as_ranges(trainer.loader.documents(batch)),
        learning_rate=trainer.optimizer.param_groups[0]["lr"],
        grad_norm=grad_norm,
        updated=updated,
        skipped=skipped,
        skipped_steps=len(trainer.rule.skipped),
        seconds=seconds,
        layout=str(trainer.layout),
        metrics=metric_values(finished),
    )


def _read_rows(trainer: Trainer, step: int) -> RankRows:
    """Read this rank's packed rows; if that fails, return empty ones and the reason, so that no rank waits."""
    settings, loader = trainer.config.train, trainer.loader
    data, context = parallel_state.get_data_parallel_rank(), parallel_state.get_context_parallel_rank()
    batch = loader.batch(step, settings.global_batch_rows, settings.epochs)
    try:
        rows = loader.rank_rows(batch, data, context)
    except DataError as error:
        return RankRows(batch, loader.rank_rows([EMPTY_ROW] * len(batch), data, context), error)
    return RankRows(batch, [row.pinned() for row in rows] if torch.cuda.is_available() else rows)


def _prepare(trainer: Trainer, batch: list[int]) -> None:
    """Clear the gradients; set the learning rate, the scale of the balancing loss and the random state of dropout."""
    rate = learning_rate(trainer.step, trainer.num_steps, trainer.config.optimizer)
    set_learning_rate(trainer.optimizer, rate)
    if trainer.config.adapter.dropout:
        seed_dropout(trainer.config.train.seed, trainer.step, dist.get_rank())
    for chunk in trainer.chunks:
        chunk.zero_grad_buffer()  # type: ignore[operator]
    trainer.optimizer.zero_grad()
    _scale_balancing_loss(trainer, batch, trainer.loader.num_supervised_tokens(batch))


def _scale_balancing_loss(trainer: Trainer, batch: list[int], num_supervised_tokens: int) -> None:
    """Make the router's loss coefficients independent of the share of supervised tokens.

    Megatron multiplies balancing loss and z-loss by the number of tokens a router sees, without padding, and divides by
    the number of supervised tokens: without this scale, the coefficient would grow by document tokens / supervised
    tokens, 25 for ACC.
    """
    share = num_supervised_tokens / max(1, trainer.loader.num_document_tokens(batch))
    optimizer = trainer.optimizer
    trainer.transformer.moe_grad_scale_func = lambda: optimizer.scale_loss(
        torch.tensor(share, device=torch.cuda.current_device())
    )


def _flags(trainer: Trainer, loss: float, grad_norm: float, *, is_broken: bool, is_stopped: bool) -> set[str]:
    """Return the flags that this rank raises."""
    raised = {"broken"} if is_broken else set()
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raised.add("non_finite")
    elif trainer.rule.is_spike(loss, grad_norm):
        raised.add("spike")
    if is_stopped:
        raised.add("stop")
    return raised


def _observed_bad_step(trainer: Trainer, batch: list[int], parts: list[torch.Tensor], grad_norm: float) -> BadStep:
    """Return what this rank knows of a step that is not finite: packed rows with a bad loss, first bad gradient."""
    mine = batch[parallel_state.get_data_parallel_rank() :: trainer.layout.data]
    bad = [row for row, part in zip(mine, parts, strict=False) if not torch.isfinite(part).all()]
    gradients = (
        (name, parameter.main_grad)
        for model in trainer.models
        for name, parameter in model.named_parameters()
        if hasattr(parameter, "main_grad")
    )
    documents = trainer.loader.documents(bad) or trainer.loader.documents(mine)
    ids = trainer.loader.dataset.samples["id"]
    return BadStep(
        documents=documents,
        samples=[ids[document].as_py() for document in documents],
        has_bad_loss=bool(bad),
        grad_norm=grad_norm,
        first_bad_gradient=next((name for name, grad in gradients if not torch.isfinite(grad).all()), None),
    )
