"""Which positions of a packed row a context-parallel rank holds: a zig-zag slice of every document.

Each document is cut into 2 x context chunks; rank r holds chunks r and 2 x context - 1 - r, so causal work is
even. It is the order that Megatron's packed rotary embedding expects.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch


@lru_cache(maxsize=32)
def local_positions(cu_seqlens: tuple[int, ...], context: int, rank: int) -> torch.Tensor:
    """Row positions `[row / context]` int64 of one rank, in the order it holds them.

    `cu_seqlens` are the document bounds of the whole row, from 0 to its length; every document must be a
    multiple of 2 x context.
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
    """Index `[row]` int64 that puts a rank-order all-gather back into row order."""
    gathered = torch.cat([local_positions(cu_seqlens, context, rank) for rank in range(context)])
    order = torch.empty_like(gathered)
    order[gathered] = torch.arange(len(gathered))
    return order


def shard(tensor: torch.Tensor, cu_seqlens: Sequence[int], context: int, rank: int) -> torch.Tensor:
    """This rank's slice `[row / context]` of a `[row]` tensor."""
    return tensor if context == 1 else tensor[local_positions(tuple(cu_seqlens), context, rank)]
