"""Softmax statistics of rows over vocabulary shards, and how the shards combine them.

The vocabulary-parallel cross entropy of Megatron-LM (arXiv 1909.08053, section 3), extended by the entropy.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist

from acc_megatron.kernels.shared.supervised_rows import num_shards

# maxima below this are raised to it, so that a shard or tile of only -inf has the sum 0 and not exp(-inf + inf)
LOWEST_MAXIMUM = -1e38


class Statistics(NamedTuple):
    """Statistics `[rows]` of the logits z of one shard, with e = exp(z - max z).

    `maximum` is max z but at least LOWEST_MAXIMUM, `sum_exp` is sum e, `target_logit` is the z of the target (0 if
    another shard has it), and `moment` is sum (z - max z) e, or None if the entropy is not requested.
    """

    maximum: torch.Tensor
    sum_exp: torch.Tensor
    target_logit: torch.Tensor
    moment: torch.Tensor | None


class TokenLoss(NamedTuple):
    """Per row `[rows]`, over the full vocabulary: log-sum-exp, log P(target), and the entropy in nats or None."""

    log_sum_exp: torch.Tensor
    log_probability: torch.Tensor
    entropy: torch.Tensor | None


def reduce_statistics(own: Statistics, group: dist.ProcessGroup | None) -> TokenLoss:
    """Combine the shards of `group` by one all-reduce of maxima and one of sums; the result is equal on every rank."""
    maximum = own.maximum.clone()
    sums = [own.sum_exp, own.target_logit, *([] if own.moment is None else [own.moment])]
    if num_shards(group) > 1:
        dist.all_reduce(maximum, op=dist.ReduceOp.MAX, group=group)
        shift = own.maximum - maximum
        scale = shift.exp()
        sums[0] = own.sum_exp * scale
        if own.moment is not None:
            sums[2] = (own.moment + shift * own.sum_exp) * scale
        stacked = torch.stack(sums)
        dist.all_reduce(stacked, group=group)
        sums = list(stacked)
    log_sum = sums[0].log()
    entropy = log_sum - sums[2] / sums[0] if own.moment is not None else None
    return TokenLoss(maximum + log_sum, sums[1] - maximum - log_sum, entropy)
