"""Cross entropy of a linear head over supervised rows only, in plain torch: the definition, and the CPU path.

Rows without weight leave before anything is multiplied, so time and memory follow the supervised share.
With a vocabulary sharded over a process group each rank multiplies its shard, and maximum, sum of exponentials
and target logit are all-reduced (the vocabulary-parallel cross entropy of Megatron-LM, arXiv 1909.08053, sec. 3).

Shape suffixes: T tokens of this rank, N supervised rows (of all ranks, under sequence parallelism), V vocabulary
shard, H hidden.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def masked_linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(loss_sum, weight_sum)`: float32 scalars, the sum over tokens of weight x -log P(target) and of weight.

    hidden `[tokens, hidden]` and weight `[vocab / shards, hidden]` of one floating dtype, targets `[tokens]`
    int64 over the whole vocabulary, token_weights `[tokens]` >= 0. `group` holds the vocabulary shards in rank
    order. With `sequence_parallel` each rank of the group brings different tokens, else all bring the same;
    both sums are over the tokens of all ranks, equal on each, and gradients are those of that one loss.
    A rank without supervised rows is a normal case.
    """
    loss_sum, weight_sum = _MaskedLinearCrossEntropy.apply(
        hidden, weight, targets, token_weights, group, sequence_parallel and _size(group) > 1
    )
    return loss_sum, weight_sum


class _MaskedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_T: torch.Tensor,
        token_weights_T: torch.Tensor,
        group: dist.ProcessGroup | None,
        sequence_parallel: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = token_weights_T.nonzero().squeeze(1)
        own_NH, targets_N, weights_N = hidden_TH[rows], targets_T[rows], token_weights_T[rows].float()
        counts = None
        rows_NH = own_NH
        if sequence_parallel:
            assert group is not None
            counts = _counts(len(rows), group, hidden_TH.device)
            rows_NH, targets_N, weights_N = (_gather(x, counts, group) for x in (own_NH, targets_N, weights_N))
        logits_NV = F.linear(rows_NH, weight_VH).float()
        loss_N, dlogits_NV = _cross_entropy(logits_NV, targets_N, group)
        dlogits_NV *= weights_N[:, None]
        ctx.save_for_backward(rows, rows_NH, weight_VH, dlogits_NV)
        ctx.shape, ctx.group, ctx.counts = hidden_TH.shape, group, counts
        return (loss_N * weights_N).sum(), weights_N.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, rows_NH, weight_VH, dlogits_NV = ctx.saved_tensors
        dlogits_NV = (dlogits_NV * grad_loss).to(weight_VH.dtype)
        dweight_VH = dlogits_NV.T @ rows_NH if ctx.needs_input_grad[1] else None
        dhidden_TH = None
        if ctx.needs_input_grad[0]:
            drows_NH = dlogits_NV @ weight_VH
            if _size(ctx.group) > 1:
                # each rank holds the part through its vocabulary shard
                dist.all_reduce(drows_NH, group=ctx.group)
            if ctx.counts is not None:
                drows_NH = drows_NH.split(ctx.counts)[dist.get_rank(ctx.group)]
            dhidden_TH = drows_NH.new_zeros(ctx.shape)
            dhidden_TH[rows] = drows_NH
        return dhidden_TH, dweight_VH, None, None, None, None


def _cross_entropy(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, group: dist.ProcessGroup | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss `[N]` and its gradient by the logits `[N, V]`, which overwrites them."""
    shards = _size(group)
    first = (dist.get_rank(group) if shards > 1 else 0) * logits_NV.shape[1]
    is_local_N = (targets_N >= first) & (targets_N < first + logits_NV.shape[1])
    column_N = torch.where(is_local_N, targets_N - first, 0)
    max_N = logits_NV.amax(dim=1)
    if shards > 1:
        dist.all_reduce(max_N, op=dist.ReduceOp.MAX, group=group)
    logits_NV -= max_N[:, None]
    target_logit_N = logits_NV.gather(1, column_N[:, None]).squeeze(1) * is_local_N
    exp_NV = logits_NV.exp_()
    sum_exp_N = exp_NV.sum(dim=1)
    if shards > 1:
        both = torch.stack([sum_exp_N, target_logit_N])
        dist.all_reduce(both, group=group)
        sum_exp_N, target_logit_N = both
    dlogits_NV = exp_NV.div_(sum_exp_N[:, None])
    dlogits_NV.scatter_add_(1, column_N[:, None], -is_local_N.to(dlogits_NV.dtype)[:, None])
    return sum_exp_N.log() - target_logit_N, dlogits_NV


def _size(group: dist.ProcessGroup | None) -> int:
    return dist.get_world_size(group) if group is not None else 1


def _counts(num_rows: int, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """Supervised rows of every rank of the group."""
    counts = torch.zeros(_size(group), dtype=torch.int64, device=device)
    counts[dist.get_rank(group)] = num_rows
    dist.all_reduce(counts, group=group)
    return counts.tolist()


def _gather(rows: torch.Tensor, counts: list[int], group: dist.ProcessGroup) -> torch.Tensor:
    """Concatenate different numbers of rows of all ranks, in rank order, through a padded all-gather."""
    largest = max(counts)
    padded = rows.new_zeros((largest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = rows.new_empty((len(counts) * largest, *rows.shape[1:]))
    dist.all_gather_into_tensor(gathered, padded, group=group)
    return (
        torch.cat([part[:count] for part, count in zip(gathered.split(largest), counts, strict=True)])
        if largest
        else rows
    )
