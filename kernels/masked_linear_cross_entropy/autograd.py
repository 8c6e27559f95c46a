"""The autograd function of the masked output layer: row selection, collectives, memory modes and gradients.

A backend (`reference.py` or `launch.py`) does the arithmetic. Statistics always come from float32 logits. Up to a size
limit, the exponentials `[N, V]` are kept from the forward to the backward pass, which takes 3 passes over the weight.
Otherwise logits are computed twice, one window of columns at a time, which takes 4 passes.

Shape suffixes: T tokens of this rank, N supervised rows (of all ranks, under sequence parallelism), V vocabulary
shard, H hidden.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from acc_megatron.kernels.shared.kernel_context import kernel_context
from acc_megatron.kernels.shared.softmax_statistics import Statistics, reduce_statistics
from acc_megatron.kernels.shared.supervised_rows import SupervisedRows, find_supervised_rows, local_columns, num_shards

WINDOW_COLUMNS = 8192
WIDE = (torch.float32, torch.float64)  # dtypes in which gradients are summed


class KeptExponentials(NamedTuple):
    """What the forward pass keeps of the logits z for the backward pass.

    `exponentials` `[N, V]` are exp(z - m) in the dtype of the arguments, with m the maximum of the row in a group of
    columns: a rounding is relative to a probability. `maximum` `[groups, N]` float32 is m, in base 2 in `launch.py`.
    """

    exponentials: torch.Tensor
    maximum: torch.Tensor


class Backend(Protocol):
    """The arithmetic of the operation. `reference.py` defines it in plain torch, `launch.py` uses the kernels."""

    def head_statistics(
        self,
        rows_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        columns_N: torch.Tensor,
        *,
        with_entropy: bool,
        keep: bool,
    ) -> tuple[Statistics, KeptExponentials | None]: ...

    def kept_gradient(
        self,
        kept: KeptExponentials,
        columns_N: torch.Tensor,
        log_sum_exp_N: torch.Tensor,
        softmax_scale_N: torch.Tensor,
        target_scale_N: torch.Tensor,
    ) -> torch.Tensor: ...

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
class Settings:
    """How the op runs and what it returns."""

    backend: Backend
    keep_limit_bytes: int | None = None  # exponentials up to this size are kept; None keeps any size
    main_grad: torch.Tensor | None = None  # buffer that the gradient of the weight is added to; None returns it
    z_loss: float = 0.0
    per_token: bool = False


def masked_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None,
    sequence_parallel: bool,
    settings: Settings,
) -> tuple[torch.Tensor, ...]:
    """`(loss_sum, weight_sum)`; with `per_token` also log probability and entropy `[tokens]` of this rank's tokens."""
    rows = find_supervised_rows(token_weights, group, sequence_parallel)
    if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        # no backward pass can follow
        settings = replace(settings, keep_limit_bytes=-1)
    with kernel_context(hidden):
        outputs = _MaskedLoss.apply(hidden, weight, targets[rows.own], token_weights[rows.own], rows, settings)
    return outputs if settings.per_token else outputs[:2]


class _MaskedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        own_targets: torch.Tensor,
        own_weights: torch.Tensor,
        rows: SupervisedRows,
        settings: Settings,
    ) -> tuple[torch.Tensor | None, ...]:
        backend, with_entropy = settings.backend, settings.per_token
        rows_NH = rows.gather(hidden_TH[rows.own])
        sum_dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
        weights_N = rows.gather(own_weights.to(sum_dtype))
        columns_N = local_columns(rows.gather(own_targets), len(weight_VH), rows.group)
        size_bytes = len(rows_NH) * len(weight_VH) * weight_VH.element_size()
        keep = settings.keep_limit_bytes is None or size_bytes <= settings.keep_limit_bytes
        statistics, kept = backend.head_statistics(rows_NH, weight_VH, columns_N, with_entropy=with_entropy, keep=keep)
        token = reduce_statistics(statistics, rows.group)
        loss_N = settings.z_loss * token.log_sum_exp**2 - token.log_probability
        ctx.save_for_backward(rows_NH, weight_VH, columns_N, weights_N, token.log_sum_exp)
        ctx.keep, ctx.kept = keep, kept
        ctx.rows, ctx.settings, ctx.hidden_shape = rows, settings, hidden_TH.shape
        sums = (loss_N * weights_N).sum(), weights_N.sum()
        if token.entropy is None:
            return *sums, None, None
        # zero for unsupervised tokens; reported only, without gradient
        dense = [torch.zeros(len(hidden_TH), dtype=sum_dtype, device=hidden_TH.device) for _ in range(2)]
        for dense_T, value_N in zip(dense, (token.log_probability, token.entropy), strict=True):
            dense_T[rows.own] = rows.take_own(value_N)
        ctx.mark_non_differentiable(*dense)
        return *sums, *dense

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        with kernel_context(grad_loss):
            return *_MaskedLoss._gradients(ctx, grad_loss), None, None, None, None

    @staticmethod
    def _gradients(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        rows_NH, weight_VH, columns_N, weights_N, log_sum_exp_N = ctx.saved_tensors
        settings, rows = ctx.settings, ctx.rows
        backend, main_grad = settings.backend, settings.main_grad
        target_scale_N = weights_N * grad_loss
        softmax_scale_N = target_scale_N * (1 + 2 * settings.z_loss * log_sum_exp_N)
        row_values = columns_N, log_sum_exp_N, softmax_scale_N, target_scale_N
        if ctx.keep:
            if ctx.kept is None:
                raise RuntimeError(
                    "backward ran twice: the first backward pass overwrote the kept exponentials with the gradient"
                )
            dlogits_NV = backend.kept_gradient(ctx.kept, *row_values)
            ctx.kept = None
        drows_NH = dweight_VH = None
        if ctx.needs_input_grad[0]:
            drows_NH = torch.zeros(rows_NH.shape, dtype=weights_N.dtype, device=rows_NH.device)
        if ctx.needs_input_grad[1] and main_grad is None:
            dweight_VH = torch.zeros_like(weight_VH)
        into_VH = main_grad if dweight_VH is None else dweight_VH
        # products of kept gradients need no windows, unless a narrow gradient is rounded window by window
        in_windows = not ctx.keep or (into_VH is not None and into_VH.dtype not in WIDE)
        columns = WINDOW_COLUMNS if in_windows else len(weight_VH)
        for first in range(0, len(weight_VH), columns):
            window = slice(first, min(first + columns, len(weight_VH)))
            if ctx.keep:
                dlogits_NC = dlogits_NV[:, window]
            else:
                dlogits_NC = backend.window_gradient(rows_NH, weight_VH, window, *row_values)
            if drows_NH is not None:
                backend.add_product_(drows_NH, dlogits_NC, weight_VH[window], transpose=False)
            if ctx.needs_input_grad[1]:
                _add_weight_gradient(backend, into_VH, window, dlogits_NC, rows_NH)
            # otherwise two windows would exist at once
            del dlogits_NC
        return _hidden_gradient(drows_NH, rows, ctx.hidden_shape, rows_NH.dtype), dweight_VH


def _add_weight_gradient(
    backend: Backend, into_VH: torch.Tensor, window: slice, dlogits_NC: torch.Tensor, rows_NH: torch.Tensor
) -> None:
    """Add the gradient of one window to `into_VH`; the sum is rounded once if that is narrower than float32."""
    part_CH = into_VH[window]
    if part_CH.dtype in WIDE:
        backend.add_product_(part_CH, dlogits_NC, rows_NH, transpose=True)
        return
    sum_CH = part_CH.float()
    backend.add_product_(sum_CH, dlogits_NC, rows_NH, transpose=True)
    part_CH.copy_(sum_CH)


def _hidden_gradient(
    drows_NH: torch.Tensor | None, rows: SupervisedRows, shape: torch.Size, dtype: torch.dtype
) -> torch.Tensor | None:
    """The gradient `[T, H]` of this rank's hidden states, summed over the shards; zero for unsupervised rows."""
    if drows_NH is None:
        return None
    if num_shards(rows.group) > 1:
        # not a reduce-scatter: the numbers of rows per rank differ widely
        dist.all_reduce(drows_NH, group=rows.group)
    dhidden_TH = torch.zeros(shape, dtype=dtype, device=drows_NH.device)
    dhidden_TH[rows.own] = rows.take_own(drows_NH).to(dtype)
    return dhidden_TH
