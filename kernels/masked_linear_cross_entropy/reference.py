"""Cross entropy of a linear head over supervised rows only, in plain torch: the definition, and the CPU path.

The stages below are what the kernels are held to; `head.py` runs either. Rows without weight leave before anything
is multiplied, so time and memory follow the supervised share.

Shape suffixes: N supervised rows, V vocabulary shard, C a window of its columns, H hidden.
"""

import sys
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F

from acc_megatron.kernels.masked_linear_cross_entropy.head import HeadSettings, Stages, masked_head
from acc_megatron.kernels.statistics import Statistics
from acc_megatron.kernels.vocab_parallel_cross_entropy.reference import row_gradient_, row_statistics


def masked_linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
) -> tuple[torch.Tensor, ...]:
    """`(loss_sum, weight_sum)` of the op of this name, unchecked, in plain torch on any device."""
    settings = HeadSettings(stages=cast(Stages, sys.modules[__name__]))
    return masked_head(
        hidden, weight, targets, token_weights, group=group, sequence_parallel=sequence_parallel, settings=settings
    )


def logits(rows_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
    """Compact logits `[N, V]` in the dtype of the arguments."""
    return F.linear(rows_NH, weight_VH)


def head_statistics(
    rows_NH: torch.Tensor, weight_VH: torch.Tensor, columns_N: torch.Tensor, window: int, with_entropy: bool
) -> Statistics:
    """Statistics `[N]` of logits that never exist beyond a window of columns."""
    every_N = torch.arange(len(rows_NH), device=rows_NH.device)
    total: Statistics | None = None
    for first in range(0, len(weight_VH), window):
        logits_NC = F.linear(rows_NH, weight_VH[first : first + window])
        here_N = columns_N - first
        here_N = torch.where((here_N >= 0) & (here_N < logits_NC.shape[1]), here_N, -1)
        part = row_statistics(logits_NC, every_N, here_N, with_entropy)
        # or two windows would be alive at once
        del logits_NC
        total = part if total is None else _merge(total, part)
    assert total is not None
    return total


def window_gradient(
    rows_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    window: slice,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Gradient by the logits `[N, C]` of one window, recomputed, in the dtype of the arguments."""
    logits_NC = F.linear(rows_NH, weight_VH[window])
    here_N = columns_N - window.start
    here_N = torch.where((here_N >= 0) & (here_N < logits_NC.shape[1]), here_N, -1)
    every_N = torch.arange(len(rows_NH), device=rows_NH.device)
    row_gradient_(logits_NC, every_N, here_N, log_sum_exp_N, softmax_scale_N, target_scale_N)
    return logits_NC


def add_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, transpose: bool) -> None:
    """out `[M, H]` += left `[M, K]` (or left `[K, M]` transposed) @ right `[K, H]`, summed in the dtype of `out`."""
    out.addmm_((left.T if transpose else left).to(out.dtype), right.to(out.dtype))


def _merge(one: Statistics, other: Statistics) -> Statistics:
    maximum = torch.maximum(one.maximum, other.maximum)
    scales = [(part.maximum - maximum).exp() for part in (one, other)]
    moment = None
    if one.moment is not None and other.moment is not None:
        moment = (one.moment + (one.maximum - maximum) * one.sum_exp) * scales[0]
        moment += (other.moment + (other.maximum - maximum) * other.sum_exp) * scales[1]
    sum_exp = one.sum_exp * scales[0] + other.sum_exp * scales[1]
    return Statistics(maximum, sum_exp, one.target_logit + other.target_logit, moment)
