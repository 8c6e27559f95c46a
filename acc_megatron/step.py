"""One optimizer step over one global batch of packed rows."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func

from acc_megatron.config import LossConfig
from acc_megatron.data.loader import PackedRow
from acc_megatron.loss import masked_head, reduce_loss
from acc_megatron.optimizer import set_learning_rate
from acc_megatron.schedule import learning_rate
from acc_megatron.trainer import Trainer


def train_step(trainer: Trainer) -> dict[str, Any]:
    """One optimizer step over one global batch; returns what is logged, equal on every rank."""
    started = time.perf_counter()
    settings, layout = trainer.config.train, trainer.layout
    rate = learning_rate(trainer.step, trainer.num_steps, trainer.config.optimizer)
    set_learning_rate(trainer.optimizer, rate)
    for chunk in trainer.chunks:
        chunk.zero_grad_buffer()  # type: ignore[operator]
    trainer.optimizer.zero_grad()
    batch = trainer.loader.batch(trainer.step, settings.global_batch_rows, settings.epochs)
    rows = trainer.loader.rank_rows(
        batch, parallel_state.get_data_parallel_rank(), parallel_state.get_context_parallel_rank()
    )
    _scale_balancing_loss(trainer, trainer.loader.num_supervised_tokens(batch))
    sums = forward_backward(trainer, rows)
    updated, grad_norm, _ = trainer.optimizer.step()
    trainer.step += 1
    seconds = time.perf_counter() - started
    tokens = settings.global_batch_rows * trainer.config.data.seq_length_tokens
    loss_sum, count = sums.tolist()
    return {
        "loss": loss_sum / max(1.0, count),
        "supervised_tokens": round(count),
        "tokens": tokens,
        "learning_rate": rate,
        "grad_norm": float(grad_norm),
        "updated": bool(updated),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "layout": str(layout),
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


def forward_backward(trainer: Trainer, rows: list[PackedRow]) -> torch.Tensor:
    """Gradients of the global batch into the buffers; returns `[2]`: loss sum and supervised tokens of all ranks."""
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
    return sums


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
