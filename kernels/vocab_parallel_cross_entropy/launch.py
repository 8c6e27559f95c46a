"""The functions of `reference.py` implemented by the kernels: grids and block sizes."""

import torch
import triton

from acc_megatron.kernels.shared.softmax_statistics import Statistics
from acc_megatron.kernels.vocab_parallel_cross_entropy import kernel

BLOCK_COLUMNS = 8192


def row_statistics(
    logits_TV: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor, with_entropy: bool
) -> Statistics:
    """Statistics `[N]` of rows `rows_N`, in float32."""
    maximum_N, sum_exp_N, target_N, moment_N = torch.empty(
        4, len(rows_N), dtype=torch.float32, device=logits_TV.device
    ).unbind()
    if len(rows_N):
        kernel.row_statistics[(len(rows_N),)](
            logits_TV,
            rows_N,
            columns_N,
            maximum_N,
            sum_exp_N,
            target_N,
            moment_N,
            logits_TV.shape[1],
            logits_TV.stride(0),
            B=_block(logits_TV),
            ENTROPY=with_entropy,
            num_warps=8,
        )
    return Statistics(maximum_N, sum_exp_N, target_N, moment_N if with_entropy else None)


def row_gradient_(
    logits_TV: torch.Tensor,
    rows_N: torch.Tensor,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> None:
    """Overwrite rows `rows_N` with their gradient, and all other rows with zeros."""
    if not len(logits_TV):
        return
    slot_T = torch.full((len(logits_TV),), -1, dtype=torch.int64, device=logits_TV.device)
    slot_T[rows_N] = torch.arange(len(rows_N), device=logits_TV.device)
    kernel.row_gradient[(len(logits_TV),)](
        logits_TV,
        slot_T,
        columns_N,
        log_sum_exp_N,
        softmax_scale_N,
        target_scale_N,
        logits_TV.shape[1],
        logits_TV.stride(0),
        B=_block(logits_TV),
        num_warps=8,
    )


def _block(logits_TV: torch.Tensor) -> int:
    return min(BLOCK_COLUMNS, max(16, triton.next_power_of_2(logits_TV.shape[1])))
