"""Row statistics and gradients of given logits in plain torch: the reference for the row kernels, and the CPU path.

Shape suffixes: T rows of the logits, N supervised rows, V vocabulary shard. Rows are processed in blocks, which limits
the memory of the converted copies.
"""

from collections.abc import Iterator

import torch

from acc_megatron.kernels.shared.softmax_statistics import LOWEST_MAXIMUM, Statistics

# a GPU needs larger blocks, because every block starts several kernels
BLOCK_ELEMENTS, GPU_BLOCK_ELEMENTS = 1 << 20, 1 << 24


def row_statistics(
    logits_TV: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor, with_entropy: bool
) -> Statistics:
    """Statistics `[N]` of rows `rows_N`, in float32 (float64 for float64 logits); columns_N is -1 without a target."""
    dtype = torch.promote_types(logits_TV.dtype, torch.float32)
    maximum_N, sum_exp_N, target_N, moment_N = (
        torch.empty(len(rows_N), dtype=dtype, device=rows_N.device) for _ in range(4)
    )
    for block in row_blocks(logits_TV, len(rows_N)):
        z = logits_TV[rows_N[block]].to(dtype)
        column = columns_N[block]
        target_N[block] = z.gather(1, column.clamp(min=0)[:, None]).squeeze(1).where(column >= 0, 0)
        maximum_N[block] = z.amax(dim=1).clamp_(min=LOWEST_MAXIMUM)
        z -= maximum_N[block, None]
        exp = z.exp()
        sum_exp_N[block] = exp.sum(dim=1)
        if with_entropy:
            # a logit of -inf has probability 0 and contributes nothing
            moment_N[block] = exp.mul_(z).nan_to_num_(nan=0.0).sum(dim=1)
    return Statistics(maximum_N, sum_exp_N, target_N, moment_N if with_entropy else None)


def row_gradient_(
    logits_TV: torch.Tensor,
    rows_N: torch.Tensor,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> None:
    """Overwrite rows `rows_N` with softmax_scale x softmax - target_scale x onehot, and all other rows with zeros."""
    dtype = log_sum_exp_N.dtype
    if len(rows_N) < len(logits_TV):
        is_other_T = torch.ones(len(logits_TV), dtype=torch.bool, device=rows_N.device).index_fill_(0, rows_N, False)
        logits_TV[is_other_T] = 0
    for block in row_blocks(logits_TV, len(rows_N)):
        z, column = logits_TV[rows_N[block]].to(dtype), columns_N[block]
        z.sub_(log_sum_exp_N[block, None]).exp_().mul_(softmax_scale_N[block, None])
        z.scatter_add_(1, column.clamp(min=0)[:, None], -target_scale_N[block].where(column >= 0, 0)[:, None])
        logits_TV[rows_N[block]] = z.to(logits_TV.dtype)


def row_blocks(matrix: torch.Tensor, num_rows: int) -> Iterator[slice]:
    """Slices of `num_rows` rows; the converted copy of one block of `matrix` `[rows, columns]` is small."""
    elements = GPU_BLOCK_ELEMENTS if matrix.is_cuda else BLOCK_ELEMENTS
    size = max(1, elements // max(1, matrix.shape[1]))
    return (slice(start, start + size) for start in range(0, num_rows, size))
