"""Softmax statistics of rows over vocabulary shards: what the shards exchange, and what follows from it.

The vocabulary-parallel cross entropy of Megatron-LM (arXiv 1909.08053, section 3), with entropy beside it.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist

from acc_megatron.kernels.rows import shards


class Statistics(NamedTuple):
    """Of each row `[rows]` over one shard's logits z: max z, sum of e = exp(z - max), the target's z (0 where another
    shard owns it), and sum of (z - max) e where entropy is asked for."""

    maximum: torch.Tensor
    sum_exp: torch.Tensor
    target_logit: torch.Tensor
    moment: torch.Tensor | None


class TokenLoss(NamedTuple):
    """Of each row `[rows]` over the whole vocabulary: log-sum-exp, log P(target), and entropy in nats if asked for."""

    log_sum_exp: torch.Tensor
    log_probability: torch.Tensor
    entropy: torch.Tensor | None


def reduce_statistics(own: Statistics, group: dist.ProcessGroup | None) -> TokenLoss:
    """Combine the shards of `group`: one all-reduce of maxima, one of sums. Equal on every rank."""
    maximum = own.maximum.clone()
    parts = [own.sum_exp, own.target_logit, *([] if own.moment is None else [own.moment])]
    if shards(group) > 1:
        dist.all_reduce(maximum, op=dist.ReduceOp.MAX, group=group)
        shift = own.maximum - maximum
        scale = shift.exp()
        parts[0] = own.sum_exp * scale
        if own.moment is not None:
            parts[2] = (own.moment + shift * own.sum_exp) * scale
        sums = torch.stack(parts)
        dist.all_reduce(sums, group=group)
        parts = list(sums)
    log_sum = parts[0].log()
    entropy = log_sum - parts[2] / parts[0] if own.moment is not None else None
    return TokenLoss(maximum + log_sum, parts[1] - maximum - log_sum, entropy)
