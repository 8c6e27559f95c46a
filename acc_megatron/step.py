"""One optimizer step over one global batch of packed rows."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func

from acc_megatron.config import LossConfig
from acc_megatron.data.loader import EMPTY_ROW, PackedRow
from acc_megatron.errors import DataError
from acc_megatron.loss import masked_head, reduce_loss
from acc_megatron.observe.expert_load import load_values
from acc_megatron.observe.usage import as_ranges, batch_flops, memory_bytes, peak_flops_per_second
from acc_megatron.optimizer import set_learning_rate
from acc_megatron.resilience.abandoned import Abandoned
from acc_megatron.resilience.agreement import agree
from acc_megatron.resilience.bad_step import broken_data, non_finite_step
from acc_megatron.schedule import learning_rate
from acc_megatron.trainer import Trainer


def train_step(trainer: Trainer) -> dict[str, Any]:
    """One optimizer step over one global batch; returns what is logged, equal on every rank.

    The ranks agree once, when loss and gradient norm are known and no weight is touched yet. A spike is skipped.
    Raises Abandoned on every rank, with the state of the step before, when a loss or a gradient is not a number or a
    rank could not read its rows.
    """
    started = time.perf_counter()
    settings, number = trainer.config.train, trainer.step + 1
    trainer.progress.enter("data", number)
    batch = trainer.loader.batch(trainer.step, settings.global_batch_rows, settings.epochs)
    rows, problem = _read_rows(trainer, batch)
    data_seconds = time.perf_counter() - started

    trainer.progress.enter("forward and backward", number)
    _prepare(trainer, batch)
    sums, parts = forward_backward(trainer, rows)

    trainer.progress.enter("gradient norm", number)
    trainer.optimizer.prepare_grads()
    grad_norm = float(trainer.optimizer.get_grad_norm())
    loss_sum, count = sums.tolist()
    loss = loss_sum / max(1.0, count)
    raised = {"broken"} if problem else set()
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raised.add("non_finite")
    elif trainer.rule.is_spike(loss, grad_norm):
        raised.add("spike")
    cause = trainer.stop.poll() if trainer.stop else 0
    if cause:
        raised.add("stop")
    agreed = agree(raised, trainer.loads.take(), [cause, round(data_seconds * 1e6), *memory_bytes()])
    if "broken" in agreed.raised:
        raise Abandoned(broken_data(number, problem))
    if "non_finite" in agreed.raised:
        raise Abandoned(non_finite_step(trainer.rule, number, _what_is_not_finite(trainer, batch, parts, grad_norm)))

    trainer.progress.enter("optimizer", number)
    skipped = "spike" in agreed.raised
    updated = not skipped and update(trainer.optimizer, grad_norm)
    trainer.rule.record(number, loss, grad_norm, skipped=skipped)
    trainer.step = number
    causes, waits, memory, peaks = zip(*agreed.measured, strict=True)
    trainer.stopped_by = next(((rank, cause) for rank, cause in enumerate(causes) if cause), None)
    seconds = time.perf_counter() - started
    tokens = settings.global_batch_rows * trainer.config.data.seq_length_tokens
    return {
        "loss": loss,
        "supervised_tokens": round(count),
        "tokens": tokens,
        "documents": as_ranges(trainer.loader.documents(batch)),
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
        "grad_norm": grad_norm,
        "updated": bool(updated),
        "skipped": skipped,
        "skipped_steps": len(trainer.rule.skipped),
        "seconds": seconds,
        "data_wait_seconds": max(waits) / 1e6,
        "tokens_per_second": tokens / seconds,
        **_flops_values(trainer, batch, seconds),
        "memory_bytes": max(memory),
        "memory_peak_bytes": max(peaks),
        **load_values(agreed.totals),
        "layout": str(trainer.layout),
    }


def _read_rows(trainer: Trainer, batch: list[int]) -> tuple[list[PackedRow], DataError | None]:
    """This rank's rows; when they cannot be read, empty ones and the reason, so that no rank is left waiting."""
    data, context = parallel_state.get_data_parallel_rank(), parallel_state.get_context_parallel_rank()
    try:
        return trainer.loader.rank_rows(batch, data, context), None
    except DataError as error:
        return trainer.loader.rank_rows([EMPTY_ROW] * len(batch), data, context), error


def _prepare(trainer: Trainer, batch: list[int]) -> None:
    """Clear the gradients and set what depends on the step."""
    rate = learning_rate(trainer.step, trainer.num_steps, trainer.config.optimizer)
    set_learning_rate(trainer.optimizer, rate)
    for chunk in trainer.chunks:
        chunk.zero_grad_buffer()  # type: ignore[operator]
    trainer.optimizer.zero_grad()
    _scale_balancing_loss(trainer, trainer.loader.num_supervised_tokens(batch))


def update(optimizer: MegatronOptimizer, grad_norm: float) -> bool:
    """The second half of Megatron's `step`: clip by the norm that is known, then update weights.

    Apart from the first half, so that the ranks can agree to leave the weights alone when they know the norm.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        parameters = part.get_parameters()
        if part.config.clip_grad > 0.0 and parameters:
            decoupled = part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
            clip_grad_by_total_norm_fp32(parameters, part.config.clip_grad, grad_norm, use_decoupled_grad=decoupled)
    return optimizer.step_with_ready_grads()


def _flops_values(trainer: Trainer, batch: list[int], seconds: float) -> dict[str, float | None]:
    """Model FLOPs a second of the whole job, and the share of its devices' peak where that is known."""
    rate = batch_flops(trainer.loader, batch, trainer.config.model) / seconds
    peak = peak_flops_per_second(trainer.config.observe.peak_flops_per_second)
    return {"model_flops_per_second": rate, "peak_share": rate / (peak * trainer.layout.world) if peak else None}


def _what_is_not_finite(
    trainer: Trainer, batch: list[int], parts: list[torch.Tensor], grad_norm: float
) -> dict[str, Any]:
    """What this rank knows of a step that went wrong: its rows with a bad loss, and its first bad gradient."""
    mine = batch[parallel_state.get_data_parallel_rank() :: trainer.layout.data]
    bad = [row for row, part in zip(mine, parts, strict=False) if not torch.isfinite(part).all()]
    gradients = (
        (name, parameter.main_grad)
        for model in trainer.models
        for name, parameter in model.named_parameters()
        if hasattr(parameter, "main_grad")
    )
    documents = trainer.loader.documents(bad)
    ids = trainer.loader.dataset.samples["id"]
    return {
        "losses": [float(part[0]) for part in parts],
        "documents": documents or trainer.loader.documents(mine),
        "samples": [ids[document].as_py() for document in documents or trainer.loader.documents(mine)],
        "has_bad_loss": bool(bad),
        "grad_norm": grad_norm,
        "first_bad_gradient": next((name for name, grad in gradients if not torch.isfinite(grad).all()), None),
    }


def _scale_balancing_loss(trainer: Trainer, num_supervised_tokens: int) -> None:
    """Let the router's coefficients mean what they say.

    Megatron multiplies balancing and z-loss by the tokens a router sees, and the final division is by supervised
    tokens: without this the coefficient would grow by all tokens / supervised tokens, 25 times on ACC.
    """
    all_tokens = trainer.config.train.global_batch_rows * trainer.config.data.seq_length_tokens
    share = num_supervised_tokens / all_tokens
    optimizer = trainer.optimizer
    trainer.transformer.moe_grad_scale_func = lambda: optimizer.scale_loss(
        torch.tensor(share, device=torch.cuda.current_device())
    )


def forward_backward(trainer: Trainer, rows: list[PackedRow]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradients of the global batch into the buffers.

    Returns `[2]`, loss sum and supervised tokens of all ranks, and the same of each of this rank's microbatches
    (none but on the last pipeline stage).
    """
    iterators = [iter(rows) for _ in trainer.chunks]
    parts = get_forward_backward_func()(
        forward_step_func=partial(_forward_step, trainer.config.loss),
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=trainer.chunks,
        num_microbatches=len(rows),
        seq_length=trainer.config.data.seq_length_tokens,
        micro_batch_size=1,
        forward_only=False,
    )
    device = torch.cuda.current_device()
    sums = torch.stack(parts).double().sum(0) if parts else torch.zeros(2, dtype=torch.float64, device=device)
    if parallel_state.is_pipeline_last_stage():
        dist.all_reduce(sums, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    if trainer.layout.pipeline > 1:
        source = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast(sums, source, group=parallel_state.get_pipeline_model_parallel_group())
    return sums, parts


def _forward_step(
    loss: LossConfig, rows: Iterator[PackedRow], model: torch.nn.Module
) -> tuple[torch.Tensor, Callable[..., Any]]:
    """One microbatch: a packed row through the model to (loss sum, count)."""
    row = next(rows)
    device = torch.cuda.current_device()
    tokens, labels, loss_mask, positions = (
        tensor[None].to(device, non_blocking=True) for tensor in (row.tokens, row.labels, row.loss_mask, row.positions)
    )
    bounds = torch.tensor(row.cu_seqlens, dtype=torch.int32, device=device)
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=row.cu_seqlens[-1],
        max_seqlen_kv=row.cu_seqlens[-1],
    )
    output = model(
        tokens,
        positions,
        None,
        labels=labels,
        loss_mask=loss_mask,
        packed_seq_params=packed,
        output_processor=masked_head,
        output_processor_context=loss,
    )
    return output, reduce_loss
