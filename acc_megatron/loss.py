"""The masked head: hidden states to `(loss_sum, token_count)`; nothing ever averages averages.

L = -sum log P over supervised tokens; Megatron divides gradients by their global count over microbatches x DP x CP
(`calculate_per_token_loss`), so the result is that of one process for every layout.
"""

import functools
import sys
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import LossConfig
from acc_megatron.kernels.masked_linear_cross_entropy.op import choose, masked_linear_cross_entropy
from acc_megatron.ranks import is_rank_zero


def masked_head(
    *,
    hidden_states: torch.Tensor,
    output_layer: ColumnParallelLinear,
    output_weight: torch.Tensor | None,
    labels: torch.Tensor,
    loss_mask: torch.Tensor,
    config: TransformerConfig,
    context: LossConfig,
    **_: Any,
) -> torch.Tensor:
    """GPTModel's `output_processor`: `[2]` float32 (loss sum, supervised tokens) of this rank's slice of a row.

    `context` is its `output_processor_context`.
    hidden_states `[tokens / tp, 1, hidden]` under sequence parallelism, labels and loss_mask `[1, tokens]`.
    Full logits never exist: only supervised rows reach the vocabulary. The weight's gradient goes straight into DDP's
    float32 `main_grad`, but where reductions overlap: these wait for a gradient that autograd brings.
    """
    group = parallel_state.get_tensor_model_parallel_group()
    tensor, rank = group.size(), group.rank()
    targets, weights = labels[0], loss_mask[0]
    if tensor > 1:
        targets, weights = targets.chunk(tensor)[rank], weights.chunk(tensor)[rank]
    weight = output_layer.weight if output_weight is None else output_weight
    hidden = hidden_states.squeeze(1)
    overlaps = config.no_sync_func is not None
    _say_once(f"masked head: {choose(hidden, context.implementation).reason}")
    sums = masked_linear_cross_entropy(
        hidden,
        weight,
        targets,
        weights,
        group=group,
        sequence_parallel=tensor > 1,
        plan=context.plan,
        implementation=context.implementation,
        main_grad=None if overlaps else getattr(weight, "main_grad", None),
    )
    return torch.stack(sums)


@functools.cache
def _say_once(line: str) -> None:
    if is_rank_zero():
        print(line, file=sys.stderr, flush=True)


def reduce_loss(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Megatron's loss contract: (scalar to differentiate, int token count, detached sums to report).

    The scalar is no view: the pipeline schedule frees it after use.
    """
    return sums[0].clone(), sums[1].detach().round().int(), sums.detach()
