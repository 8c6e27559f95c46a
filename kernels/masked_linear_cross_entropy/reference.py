"""The arithmetic of the masked output layer in plain torch: the reference for the kernels, and the CPU path.

`autograd.py` calls these functions or those of `launch.py`. Unsupervised rows are removed before anything is
multiplied, so time and memory are proportional to the number of supervised rows.

Shape suffixes: N supervised rows, V vocabulary shard, C a window of its columns, H hidden.
"""

import sys
from collections.abc import Iterator
from typing import cast

import torch
import torch.distributed as dist

from acc_megatron.kernels.masked_linear_cross_entropy.autograd import (
    WINDOW_COLUMNS,
    Backend,
    KeptExponentials,
    Settings,
    masked_loss,
)
from acc_megatron.kernels.shared.softmax_statistics import Statistics
from acc_megatron.kernels.vocab_parallel_cross_entropy.reference import row_blocks, row_gradient_, row_statistics


def masked_linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Compute `(loss_sum, weight_sum)` like the op of this name, without argument checks, in plain torch."""
    settings = Settings(backend=cast(Backend, sys.modules[__name__]))
    return masked_loss(
        hidden, weight, targets, token_weights, group=group, sequence_parallel=sequence_parallel, settings=settings
    )


def head_statistics(
    rows_NH: torch.Tensor, weight_VH: torch.Tensor, columns_N: torch.Tensor, *, with_entropy: bool, keep: bool
) -> tuple[Statistics, KeptExponentials | None]:
    """Statistics `[N]` from logits in float32 or wider, of which one window of columns exists at a time.

    With `keep`, also exp(logit - maximum of the window) of all columns in the dtype of the arguments.
    """
    exponentials_NV = rows_NH.new_empty(len(rows_NH), len(weight_VH)) if keep else None
    every_N = torch.arange(len(rows_NH), device=rows_NH.device)
    total: Statistics | None = None
    maxima = []
    for window in _windows(len(weight_VH)):
        kept_NC = None if exponentials_NV is None else exponentials_NV[:, window]
        logits_NC = _logits(rows_NH, weight_VH[window], kept_NC)
        part = row_statistics(logits_NC, every_N, _columns_in(window, columns_N), with_entropy)
        if kept_NC is not None:
            logits_NC.sub_(part.maximum[:, None]).exp_()
            if kept_NC.dtype != logits_NC.dtype:
                kept_NC.copy_(logits_NC)
        # otherwise two windows would exist at once
        del logits_NC
        maxima.append(part.maximum)
        total = part if total is None else _merge(total, part)
    assert total is not None
    return total, None if exponentials_NV is None else KeptExponentials(exponentials_NV, torch.stack(maxima))


def kept_gradient(
    kept: KeptExponentials,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Overwrite kept exponentials `[N, V]` with softmax_scale x softmax - target_scale x onehot, and return them."""
    for window, maximum_N in zip(_windows(kept.exponentials.shape[1]), kept.maximum, strict=True):
        scale_N = (maximum_N - log_sum_exp_N).exp() * softmax_scale_N
        here_N = _columns_in(window, columns_N)
        target_N = -target_scale_N.where(here_N >= 0, 0)
        kept_NC = kept.exponentials[:, window]
        for block in row_blocks(kept_NC, len(kept_NC)):
            gradient = kept_NC[block].to(scale_N.dtype).mul_(scale_N[block, None])
            gradient.scatter_add_(1, here_N[block, None].clamp(min=0), target_N[block, None])
            if gradient.dtype != kept_NC.dtype:
                kept_NC[block] = gradient
    return kept.exponentials


def window_gradient(
    rows_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    window: slice,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Gradient of the recomputed logits `[N, C]` of one window, in the dtype of the arguments."""
    logits_NC = _logits(rows_NH, weight_VH[window])
    every_N = torch.arange(len(rows_NH), device=rows_NH.device)
    here_N = _columns_in(window, columns_N)
    row_gradient_(logits_NC, every_N, here_N, log_sum_exp_N, softmax_scale_N, target_scale_N)
    return logits_NC.to(rows_NH.dtype)


def add_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, transpose: bool) -> None:
    """out `[M, H]` += left `[M, K]` (or left `[K, M]` transposed) @ right `[K, H]`, summed in the dtype of `out`.

    Columns of `left` are converted to that dtype one window at a time.
    """
    for window in _windows(left.shape[1]):
        part = left[:, window].to(out.dtype)
        if transpose:
            out[window].addmm_(part.T, right.to(out.dtype))
        else:
            out.addmm_(part, right[window].to(out.dtype))


def _windows(num_columns: int) -> Iterator[slice]:
    return (slice(first, min(first + WINDOW_COLUMNS, num_columns)) for first in range(0, num_columns, WINDOW_COLUMNS))


def _columns_in(window: slice, columns_N: torch.Tensor) -> torch.Tensor:
    """Columns of the shard as columns of a window; -1 outside of it."""
    return torch.where((columns_N >= window.start) & (columns_N < window.stop), columns_N - window.start, -1)


def _logits(rows_NH: torch.Tensor, weight_CH: torch.Tensor, out_NC: torch.Tensor | None = None) -> torch.Tensor:
    """Logits `[N, C]` in float32 or wider; in `out_NC` if it has that dtype, so that no second buffer exists."""
    dtype = torch.promote_types(rows_NH.dtype, torch.float32)
    out_NC = out_NC if out_NC is not None and out_NC.dtype == dtype else None
    return torch.mm(rows_NH.to(dtype), weight_CH.to(dtype).T, out=out_NC)


def _merge(one: Statistics, other: Statistics) -> Statistics:
    maximum = torch.maximum(one.maximum, other.maximum)
    scales = [(part.maximum - maximum).exp() for part in (one, other)]
    moment = None
    if one.moment is not None and other.moment is not None:
        moment = (one.moment + (one.maximum - maximum) * one.sum_exp) * scales[0]
        moment += (other.moment + (other.maximum - maximum) * other.sum_exp) * scales[1]
    sum_exp = one.sum_exp * scales[0] + other.sum_exp * scales[1]
    return Statistics(maximum, sum_exp, one.target_logit + other.target_logit, moment)
