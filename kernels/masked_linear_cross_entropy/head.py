"""The masked head as autograd sees it: compaction, collectives, two memory plans, gradients. No arithmetic of its own.

Compact logits `[N, V]` within a limit are kept from forward to backward, 3 passes over the weight; larger ones exist
one window of columns at a time and are computed again in backward, 4 passes.

Shape suffixes: T tokens of this rank, N supervised rows (of all ranks, under sequence parallelism), V vocabulary
shard, H hidden.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.rows import SupervisedRows, local_columns, shards, supervised_rows
from acc_megatron.kernels.statistics import Statistics, reduce_statistics

WINDOW_COLUMNS = 8192


class Stages(Protocol):
    """The arithmetic, defined by `reference.py`; `launch.py` does the same through kernels."""

    def logits(self, rows_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor: ...

    def row_statistics(
        self, logits_TV: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor, with_entropy: bool
    ) -> Statistics: ...

    def row_gradient_(
        self,
        logits_TV: torch.Tensor,
        rows_N: torch.Tensor,
        columns_N: torch.Tensor,
        log_sum_exp_N: torch.Tensor,
        softmax_scale_N: torch.Tensor,
        target_scale_N: torch.Tensor,
    ) -> None: ...

    def head_statistics(
        self,
        rows_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        columns_N: torch.Tensor,
        window: int,
        with_entropy: bool,
    ) -> Statistics: ...

    def window_gradient(
        self,
        rows_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        window: slice,
        columns_N: torch.Tensor,
        log_sum_exp_N: torch.Tensor,
        softmax_scale_N: torch.Tensor,
        target_scale_N: torch.Tensor,
    ) -> torch.Tensor: ...

    def add_product_(self, out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, transpose: bool) -> None: ...


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What the op decided: who computes, the largest compact logits that are kept (None: any), where the weight's
    gradient goes, and what is returned."""

    stages: Stages
    keep_limit_bytes: int | None = None
    main_grad: torch.Tensor | None = None
    z_loss: float = 0.0
    per_token: bool = False


def masked_head(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None,
    sequence_parallel: bool,
    settings: HeadSettings,
    problem: ArgumentError | None = None,
) -> tuple[torch.Tensor, ...]:
    """`(loss_sum, weight_sum)`, and with `per_token` log probability and entropy `[tokens]` of this rank's tokens."""
    rows = supervised_rows(token_weights, group, sequence_parallel, problem)
    outputs = _MaskedHead.apply(hidden, weight, targets[rows.own], token_weights[rows.own], rows, settings)
    return outputs if settings.per_token else outputs[:2]


class _MaskedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        own_targets: torch.Tensor,
        own_weights: torch.Tensor,
        rows: SupervisedRows,
        settings: HeadSettings,
    ) -> tuple[torch.Tensor | None, ...]:
        stages, with_entropy = settings.stages, settings.per_token
        rows_NH = rows.gather(hidden_TH[rows.own])
        sum_dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
        weights_N = rows.gather(own_weights.to(sum_dtype))
        columns_N = local_columns(rows.gather(own_targets), len(weight_VH), rows.group)
        logits_NV = None
        size_bytes = len(rows_NH) * len(weight_VH) * weight_VH.element_size()
        if settings.keep_limit_bytes is None or size_bytes <= settings.keep_limit_bytes:
            logits_NV = stages.logits(rows_NH, weight_VH)
            every_N = torch.arange(len(rows_NH), device=hidden_TH.device)
            statistics = stages.row_statistics(logits_NV, every_N, columns_N, with_entropy)
        else:
            statistics = stages.head_statistics(rows_NH, weight_VH, columns_N, WINDOW_COLUMNS, with_entropy)
        token = reduce_statistics(statistics, rows.group)
        loss_N = settings.z_loss * token.log_sum_exp**2 - token.log_probability
        ctx.save_for_backward(rows_NH, weight_VH, columns_N, weights_N, token.log_sum_exp)
        ctx.plan_keeps, ctx.logits_NV, ctx.rows, ctx.settings, ctx.shape = (
            logits_NV is not None,
            logits_NV,
            rows,
            settings,
            hidden_TH.shape,
        )
        sums = (loss_N * weights_N).sum(), weights_N.sum()
        if token.entropy is None:
            return *sums, None, None
        # zero where nothing is supervised; for the user's eyes, not for gradients
        dense = [torch.zeros(len(hidden_TH), dtype=sum_dtype, device=hidden_TH.device) for _ in range(2)]
        for dense_T, value_N in zip(dense, (token.log_probability, token.entropy), strict=True):
            dense_T[rows.own] = rows.take_own(value_N)
        ctx.mark_non_differentiable(*dense)
        return *sums, *dense

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        rows_NH, weight_VH, columns_N, weights_N, log_sum_exp_N = ctx.saved_tensors
        settings, rows = ctx.settings, ctx.rows
        stages, main_grad = settings.stages, settings.main_grad
        target_scale_N = weights_N * grad_loss
        softmax_scale_N = target_scale_N * (1 + 2 * settings.z_loss * log_sum_exp_N)
        row_values = columns_N, log_sum_exp_N, softmax_scale_N, target_scale_N
        if ctx.plan_keeps:
            if ctx.logits_NV is None:
                raise RuntimeError("backward ran twice: the kept logits already became their gradient")
            kept_NV, ctx.logits_NV = ctx.logits_NV, None
            stages.row_gradient_(kept_NV, torch.arange(len(rows_NH), device=rows_NH.device), *row_values)
        drows_NH = dweight_VH = None
        if ctx.needs_input_grad[0]:
            drows_NH = torch.zeros(rows_NH.shape, dtype=weights_N.dtype, device=rows_NH.device)
        if ctx.needs_input_grad[1] and main_grad is None:
            dweight_VH = torch.zeros_like(weight_VH)
        for first in range(0, len(weight_VH), WINDOW_COLUMNS):
            window = slice(first, min(first + WINDOW_COLUMNS, len(weight_VH)))
            if ctx.plan_keeps:
                dlogits_NC = kept_NV[:, window]
            else:
                dlogits_NC = stages.window_gradient(rows_NH, weight_VH, window, *row_values)
            if drows_NH is not None:
                stages.add_product_(drows_NH, dlogits_NC, weight_VH[window], transpose=False)
            if ctx.needs_input_grad[1]:
                _add_weight_gradient(
                    stages, main_grad if dweight_VH is None else dweight_VH, window, dlogits_NC, rows_NH
                )
            # or two windows would be alive at once
            del dlogits_NC
        return _hidden_gradient(drows_NH, rows, ctx.shape, rows_NH.dtype), dweight_VH, None, None, None, None


def _add_weight_gradient(
    stages: Stages, into_VH: torch.Tensor, window: slice, dlogits_NC: torch.Tensor, rows_NH: torch.Tensor
) -> None:
    """Sum in float32 or wider, straight into the buffer where it is that; a narrow one is rounded once."""
    part_CH = into_VH[window]
    if part_CH.dtype in (torch.float32, torch.float64):
        stages.add_product_(part_CH, dlogits_NC, rows_NH, transpose=True)
        return
    sum_CH = torch.zeros(part_CH.shape, dtype=torch.float32, device=part_CH.device)
    stages.add_product_(sum_CH, dlogits_NC, rows_NH, transpose=True)
    part_CH.copy_(sum_CH)


def _hidden_gradient(
    drows_NH: torch.Tensor | None, rows: SupervisedRows, shape: torch.Size, dtype: torch.dtype
) -> torch.Tensor | None:
    """`[T, H]` of this rank's tokens: the shards' parts summed, zero where nothing is supervised."""
    if drows_NH is None:
        return None
    if shards(rows.group) > 1:
        # not a reduce-scatter: ranks bring very different numbers of rows
        dist.all_reduce(drows_NH, group=rows.group)
    dhidden_TH = torch.zeros(shape, dtype=dtype, device=drows_NH.device)
    dhidden_TH[rows.own] = rows.take_own(drows_NH).to(dtype)
    return dhidden_TH
