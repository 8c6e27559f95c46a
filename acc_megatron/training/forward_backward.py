"""The forward and backward pass of a global batch through Megatron's pipeline schedule."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_attr_wrapped_model

from acc_megatron.config import Config
from acc_megatron.data.loader import PackedRow
from acc_megatron.data.packing import length_bucket
from acc_megatron.model.last_layer import SuffixParams
from acc_megatron.training.loss import masked_head, reduce_loss
from acc_megatron.training.suffix_rows import suffix_rows
from acc_megatron.training.trainer import Trainer


def forward_backward(
    trainer: Trainer, rows: list[PackedRow], *, forward_only: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Compute the gradients of the global batch into DDP's buffers, one packed row per microbatch.

    With `forward_only` compute its loss only.

    Returns `[2]` float64, loss sum and number of supervised tokens over all ranks, and the same of each microbatch of
    this rank (an empty list except on the last pipeline stage).
    """
    iterators = [iter(rows) for _ in trainer.chunks]
    parts = get_forward_backward_func()(
        forward_step_func=partial(_forward_step, trainer.config),
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=trainer.chunks,
        num_microbatches=len(rows),
        seq_length=trainer.config.data.seq_length_tokens,
        micro_batch_size=1,
        forward_only=forward_only,
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
    config: Config, rows: Iterator[PackedRow], model: torch.nn.Module
) -> tuple[torch.Tensor, Callable[..., Any]]:
    """Run one packed row through the model; returns `[2]` (loss sum, count) and the function that reduces it."""
    row = next(rows)
    device = torch.cuda.current_device()
    tokens, labels, loss_mask, positions = (
        tensor[None].to(device, non_blocking=True) for tensor in (row.tokens, row.labels, row.loss_mask, row.positions)
    )
    bounds = torch.tensor(row.cu_seqlens, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in pairwise(row.cu_seqlens))
    max_seqlen = length_bucket(longest, config.data.document_multiple_tokens, row.cu_seqlens[-1])
    suffixes = None
    if config.loss.last_layer_rows == "supervised" and get_attr_wrapped_model(model, "post_process"):
        suffixes = suffix_rows(config, row.complete or row, max_seqlen)
        labels, loss_mask = suffixes.labels, suffixes.loss_mask
    packed = SuffixParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=max_seqlen,
        max_seqlen_kv=max_seqlen,
        suffixes=suffixes,
    )
    output = model(
        tokens,
        positions,
        None,
        labels=labels,
        loss_mask=loss_mask,
        padding_mask=_router_padding(row.padding.to(device, non_blocking=True), model)
        if config.model.num_experts
        else None,
        packed_seq_params=packed,
        output_processor=masked_head,
        output_processor_context=config.loss,
    )
    return output, reduce_loss


def _router_padding(padding: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Return the padding mask `[1, tokens]` for the routers of a model chunk.

    GPTModel divides it over the tensor-parallel ranks in the first pipeline stage only, so it is divided here for the
    others.
    """
    group = parallel_state.get_tensor_model_parallel_group()
    if group.size() > 1 and not get_attr_wrapped_model(model, "pre_process"):
        padding = padding.chunk(group.size())[group.rank()]
    return padding[None]
