"""Row statistics and gradients of given logits in plain torch: the definition of each row kernel, and the CPU path.

Shape suffixes: T rows of the logits, N supervised rows, V vocabulary shard. Blocks of rows bound what is converted.
"""

from collections.abc import Iterator

import torch

from acc_megatron.kernels.statistics import Statistics

BLOCK_ELEMENTS = 1 << 20


def row_statistics(
    logits_TV: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor, with_entropy: bool
) -> Statistics:
    """Statistics `[N]` in float32 (float64 for float64 logits) of the chosen rows; columns_N is -1 where no target."""
    dtype = torch.promote_types(logits_TV.dtype, torch.float32)
    maximum_N, sum_exp_N, target_N, moment_N = (
        torch.empty(len(rows_N), dtype=dtype, device=rows_N.device) for _ in range(4)
    )
    for block in _blocks(len(rows_N), logits_TV.shape[1]):
        z = logits_TV[rows_N[block]].to(dtype)
        column = columns_N[block]
        target_N[block] = z.gather(1, column.clamp(min=0)[:, None]).squeeze(1).where(column >= 0, 0)
        maximum_N[block] = z.amax(dim=1)
        z -= maximum_N[block, None]
        exp = z.exp()
        sum_exp_N[block] = exp.sum(dim=1)
        if with_entropy:
            # a logit of -inf has probability 0 and adds nothing
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
    """Overwrite the chosen rows with softmax_scale x softmax - target_scale x onehot, and all others with zeros."""
    dtype = log_sum_exp_N.dtype
    if len(rows_N) < len(logits_TV):
        is_other_T = torch.ones(len(logits_TV), dtype=torch.bool, device=rows_N.device).index_fill_(0, rows_N, False)
        logits_TV[is_other_T] = 0
    for block in _blocks(len(rows_N), logits_TV.shape[1]):
        z, column = logits_TV[rows_N[block]].to(dtype), columns_N[block]
        z.sub_(log_sum_exp_N[block, None]).exp_().mul_(softmax_scale_N[block, None])
        z.scatter_add_(1, column.clamp(min=0)[:, None], -target_scale_N[block].where(column >= 0, 0)[:, None])
        logits_TV[rows_N[block]] = z.to(logits_TV.dtype)


def _blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    size = max(1, BLOCK_ELEMENTS // max(1, num_columns))
    return (slice(start, start + size) for start in range(0, num_rows, size))
