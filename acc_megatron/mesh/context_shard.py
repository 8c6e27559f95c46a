"""The zig-zag slice of every document that each context-parallel rank has.

Each document is cut into 2 x context chunks; rank r has chunks r and 2 x context - 1 - r, so that all ranks do the
same amount of causal attention. Megatron's packed rotary embedding expects this order.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch


@lru_cache(maxsize=32)
def local_positions(cu_seqlens: tuple[int, ...], context: int, rank: int) -> torch.Tensor:
    """Return the positions `[row / context]` int64 in the packed row of one rank's tokens, in that rank's order.

    `cu_seqlens` are the document bounds of the complete packed row, from 0 to its length; the length of every
    document must be a multiple of 2 x context.
    """
    if context == 1:
        return torch.arange(cu_seqlens[-1])
    parts = []
    for start, end in zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True):
        chunk, rest = divmod(end - start, 2 * context)
        assert rest == 0, f"document of {end - start} tokens is not a multiple of {2 * context}"
        for number in (rank, 2 * context - 1 - rank):
            parts.append(torch.arange(start + number * chunk, start + (number + 1) * chunk))
    return torch.cat(parts)


@lru_cache(maxsize=32)
def gathered_order(cu_seqlens: tuple[int, ...], context: int) -> torch.Tensor:
    """Return the index `[row]` int64 that restores the packed row's order after an all-gather in rank order."""
    gathered = torch.cat([local_positions(cu_seqlens, context, rank) for rank in range(context)])
    order = torch.empty_like(gathered)
    order[gathered] = torch.arange(len(gathered))
    return order


def shard(tensor: torch.Tensor, cu_seqlens: Sequence[int], context: int, rank: int) -> torch.Tensor:
    """Return one rank's slice `[row / context]` of a `[row]` tensor."""
    return tensor if context == 1 else tensor[local_positions(tuple(cu_seqlens), context, rank)]
