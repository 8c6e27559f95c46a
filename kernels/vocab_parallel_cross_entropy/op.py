"""The public function for cross entropy of given logits, its argument checks and its gradient, which is in place."""

from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from acc_megatron.kernels.shared.argument_checks import (
    FLOATS,
    check_choice,
    check_range,
    check_tensor,
    check_tokens,
    check_values,
)
from acc_megatron.kernels.shared.backend_choice import IMPLEMENTATIONS, choose_backend
from acc_megatron.kernels.shared.kernel_context import kernel_context
from acc_megatron.kernels.shared.softmax_statistics import reduce_statistics
from acc_megatron.kernels.shared.supervised_rows import find_supervised_rows, local_columns, num_shards
from acc_megatron.kernels.vocab_parallel_cross_entropy import reference


def vocab_parallel_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    z_loss: float = 0.0,
    per_token: bool = False,
    implementation: str = "auto",
) -> tuple[torch.Tensor, ...]:
    """Compute `(loss_sum, weight_sum)`, sums over tokens.

    The loss of a token is its weight x (-log P(target) + z_loss x logsumexp^2).

    **The backward pass overwrites the logits with their gradient** (zero for unsupervised rows), so it runs only once.
    Only supervised rows are read. The same inputs always give the same bits.

    Args:
        logits: `[tokens, vocab / shards]` or with more leading dims, which targets and token_weights then have too;
            floating.
        targets: `[tokens]` int64 or int32 over the full vocabulary; ignored where the token weight is 0.
        token_weights: `[tokens]`, 0 or larger; floating, integer or bool, without gradient. By default 1, or 0 where
            the target is -100.
        group: the ranks with the vocabulary shards, in rank order. All ranks pass the same tokens and get equal sums.
        z_loss: coefficient of logsumexp^2 (PaLM, arXiv 2204.02311, section 5).
        per_token: also return log P(target) and the entropy in nats, `[tokens]`, 0 for unsupervised tokens, without
            gradient.
        implementation: "triton", "torch", or "auto" to choose by device.

    Raises ArgumentError before any kernel starts.
    """
    check_tensor("logits", logits, [None] * max(2, logits.dim()), FLOATS, logits.device)
    check_range("the number of columns of logits", logits.shape[-1], 1)
    targets_T, weights_T = check_tokens(targets, token_weights, logits.shape[:-1], logits.device)
    check_range("z_loss", z_loss, 0.0)
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    backend: ModuleType = reference
    if choose_backend(logits, requested=implementation).name == "triton":
        from acc_megatron.kernels.vocab_parallel_cross_entropy import launch

        backend = launch
    check_values(targets_T, weights_T, logits.shape[-1] * num_shards(group))
    logits_TV = logits.reshape(-1, logits.shape[-1])
    rows_N = find_supervised_rows(weights_T, group, False).own
    with kernel_context(logits):
        loss_sum, weight_sum, *per_token_values = _VocabParallelCrossEntropy.apply(
            logits_TV, targets_T, weights_T, rows_N, group, z_loss, per_token, backend
        )
    if not per_token:
        return loss_sum, weight_sum
    return loss_sum, weight_sum, *(values.reshape(targets.shape) for values in per_token_values)


class _VocabParallelCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_TV: torch.Tensor,
        targets_T: torch.Tensor,
        token_weights_T: torch.Tensor,
        rows_N: torch.Tensor,
        group: dist.ProcessGroup | None,
        z_loss: float,
        per_token: bool,
        backend: ModuleType,
    ) -> tuple[torch.Tensor | None, ...]:
        sum_dtype = torch.promote_types(logits_TV.dtype, torch.float32)
        weights_N = token_weights_T[rows_N].to(sum_dtype)
        columns_N = local_columns(targets_T[rows_N], logits_TV.shape[1], group)
        token = reduce_statistics(backend.row_statistics(logits_TV, rows_N, columns_N, per_token), group)
        ctx.save_for_backward(rows_N, columns_N, weights_N, token.log_sum_exp)
        # not saved by save_for_backward: the backward pass writes to it on purpose
        ctx.logits_TV, ctx.backend, ctx.z_loss = logits_TV.detach(), backend, z_loss
        loss_N = z_loss * token.log_sum_exp**2 - token.log_probability
        sums = (loss_N * weights_N).sum(), weights_N.sum()
        if token.entropy is None:
            return *sums, None, None
        dense = [
            torch.zeros(len(logits_TV), dtype=sum_dtype, device=logits_TV.device).index_copy_(0, rows_N, value_N)
            for value_N in (token.log_probability, token.entropy)
        ]
        ctx.mark_non_differentiable(*dense)
        return *sums, *dense

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        rows_N, columns_N, weights_N, log_sum_exp_N = ctx.saved_tensors
        if ctx.logits_TV is None:
            raise RuntimeError("backward ran twice: the first backward pass overwrote the logits with their gradient")
        dlogits_TV, ctx.logits_TV = ctx.logits_TV, None
        target_scale_N = weights_N * grad_loss
        softmax_scale_N = target_scale_N * (1 + 2 * ctx.z_loss * log_sum_exp_N)
        with kernel_context(dlogits_TV):
            ctx.backend.row_gradient_(dlogits_TV, rows_N, columns_N, log_sum_exp_N, softmax_scale_N, target_scale_N)
        return dlogits_TV, *(None,) * 7
