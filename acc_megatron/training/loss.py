"""The masked head: from hidden states to `(loss_sum, token_count)`; no mean is ever averaged.

L = -sum log P over the supervised tokens. Megatron divides the gradients by their global number over microbatches x
DP x CP (`calculate_per_token_loss`), so that every layout gives the result of one process.
"""

import functools
import sys
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import ColumnParallelLinear

from acc_megatron.config import LossConfig
from acc_megatron.kernels.masked_linear_cross_entropy.op import choose, masked_linear_cross_entropy
from acc_megatron.mesh.torchrun_environment import is_rank_zero


def masked_head(
    *,
    hidden_states: torch.Tensor,
    output_layer: ColumnParallelLinear,
    output_weight: torch.Tensor | None,
    labels: torch.Tensor,
    loss_mask: torch.Tensor,
    context: LossConfig,
    **_: Any,
) -> torch.Tensor:
    """Return `[2]` float32, loss sum and number of supervised tokens, of this rank's slice of a packed row.

    It is GPTModel's `output_processor`, and `context` its `output_processor_context`. hidden_states are
    `[tokens / tp, 1, hidden]` under sequence parallelism, labels and loss_mask `[1, tokens]`.

    Logits are computed for supervised tokens only. The weight's gradient is added directly to DDP's float32
    `main_grad`; autograd gets an empty sparse gradient, for which overlapped gradient reductions wait.
    """
    _wait_for_weight(output_layer)
    group = parallel_state.get_tensor_model_parallel_group()
    tensor, rank = group.size(), group.rank()
    targets, weights = labels[0], loss_mask[0]
    if tensor > 1:
        targets, weights = targets.chunk(tensor)[rank], weights.chunk(tensor)[rank]
    weight = output_layer.weight if output_weight is None else output_weight
    if add_factors := getattr(output_layer, "add_factors", None):  # of an adapter
        weight = add_factors(weight)
    hidden = hidden_states.squeeze(1)
    main_grad = getattr(weight, "main_grad", None)
    _print_once(f"masked head: {choose(hidden, weight, context.implementation, main_grad).reason}")
    sums = masked_linear_cross_entropy(
        hidden,
        weight if main_grad is None else _EmptyGradient.apply(weight),
        targets,
        weights,
        group=group,
        sequence_parallel=tensor > 1,
        memory_mode=context.plan,
        implementation=context.implementation,
        main_grad=main_grad,
    )
    return torch.stack(sums)


class _EmptyGradient(torch.autograd.Function):
    """The weight, whose gradient from autograd is an empty sparse tensor: it arrives, adds nothing and takes no memory.

    Megatron's own layers return a dense dummy and set `grad_added_to_main_grad`, with which the hook of DDP would drop
    the gradient of an embedding that shares the weight.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        ctx.set_materialize_grads(False)
        ctx.dtype, ctx.device, ctx.shape = weight.dtype, weight.device, weight.shape
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor | None) -> torch.Tensor:
        assert gradient is None, "the head adds the gradient of its weight to main_grad"
        return torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device, layout=torch.sparse_coo)


def _wait_for_weight(output_layer: ColumnParallelLinear) -> None:
    """Run the hooks that a call of the layer would run: DDP waits in them for an overlapped gather of the weight."""
    for hook in output_layer._forward_pre_hooks.values():
        hook(output_layer, ())


@functools.cache
def _print_once(line: str) -> None:
    if is_rank_zero():
        print(line, file=sys.stderr, flush=True)


def reduce_loss(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what Megatron expects of a loss: scalar to differentiate, int token count, detached sums to report.

    The scalar is a copy, because the pipeline schedule frees its storage after use.
    """
    return sums[0].clone(), sums[1].detach().round().int(), sums.detach()
