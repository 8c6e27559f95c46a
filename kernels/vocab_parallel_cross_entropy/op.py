"""Cross entropy of given logits over supervised rows only, in place: the public function, its checks, its gradient."""

from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from acc_megatron.kernels.checks import FLOATS, WEIGHT_DTYPES, check_choice, check_range, check_tensor, value_problem
from acc_megatron.kernels.choose import IMPLEMENTATIONS, choose_implementation
from acc_megatron.kernels.rows import local_columns, shards, supervised_rows
from acc_megatron.kernels.statistics import reduce_statistics
from acc_megatron.kernels.vocab_parallel_cross_entropy import reference


def vocab_parallel_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    z_loss: float = 0.0,
    per_token: bool = False,
    implementation: str = "auto",
) -> tuple[torch.Tensor, ...]:
    """`(loss_sum, weight_sum)`: sums over tokens of weight x (-log P(target) + z_loss x logsumexp^2), and of weight.

    logits `[tokens, vocab / shards]`, targets `[tokens]` int64 over the whole vocabulary, looked at only where
    token_weights `[tokens]` >= 0 is not 0. `group` holds the vocabulary shards in rank order; all its ranks bring the
    same tokens, and the sums are equal on each. Only supervised rows are read. **Backward overwrites the logits with
    their gradient**, zero where unsupervised, so it runs once. `per_token` adds log P(target) and entropy in nats,
    `[tokens]`, 0 where unsupervised, not differentiable. `implementation`: "triton", "torch" or "auto" by device.

    The same inputs give the same bits. Raises ArgumentError before any kernel starts.
    """
    check_tensor("logits", logits, [None, None], FLOATS, logits.device)
    check_range("logits' number of columns", logits.shape[1], 1)
    check_tensor("targets", targets, [len(logits)], [torch.int64], logits.device)
    check_tensor("token_weights", token_weights, [len(logits)], WEIGHT_DTYPES, logits.device)
    check_range("z_loss", z_loss, 0.0)
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    stages: ModuleType = reference
    if choose_implementation(logits, requested=implementation).name == "triton":
        from acc_megatron.kernels.vocab_parallel_cross_entropy import launch

        stages = launch
    problem = value_problem(targets, token_weights, logits.shape[1] * shards(group))
    rows = supervised_rows(token_weights, group, False, problem).own
    outputs = _VocabParallelCrossEntropy.apply(logits, targets, token_weights, rows, group, z_loss, per_token, stages)
    return outputs if per_token else outputs[:2]


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
        stages: ModuleType,
    ) -> tuple[torch.Tensor | None, ...]:
        sum_dtype = torch.promote_types(logits_TV.dtype, torch.float32)
        weights_N = token_weights_T[rows_N].to(sum_dtype)
        columns_N = local_columns(targets_T[rows_N], logits_TV.shape[1], group)
        token = reduce_statistics(stages.row_statistics(logits_TV, rows_N, columns_N, per_token), group)
        ctx.save_for_backward(rows_N, columns_N, weights_N, token.log_sum_exp)
        # not among the saved tensors: backward writes it, on purpose
        ctx.logits_TV, ctx.stages, ctx.z_loss = logits_TV.detach(), stages, z_loss
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
            raise RuntimeError("backward ran twice: the logits already became their gradient")
        dlogits_TV, ctx.logits_TV = ctx.logits_TV, None
        target_scale_N = weights_N * grad_loss
        softmax_scale_N = target_scale_N * (1 + 2 * ctx.z_loss * log_sum_exp_N)
        ctx.stages.row_gradient_(dlogits_TV, rows_N, columns_N, log_sum_exp_N, softmax_scale_N, target_scale_N)
        return dlogits_TV, *(None,) * 7
