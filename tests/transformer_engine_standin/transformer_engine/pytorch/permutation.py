"""Tokens to experts and back; `row_id_map` is the token of each permuted row, `[rows]` int64."""

from typing import Any

import torch


def moe_permute(
    inp: torch.Tensor, routing_map: torch.Tensor, num_out_tokens: int, max_token_num: int = -1, map_type: str = "mask"
) -> tuple[torch.Tensor, torch.Tensor]:
    assert map_type == "mask"
    _, tokens = routing_map.bool().T.nonzero(as_tuple=True)  # expert by expert, in token order
    assert num_out_tokens in (-1, len(tokens)), (num_out_tokens, len(tokens))
    return inp[tokens], tokens


def moe_permute_with_probs(
    inp: torch.Tensor, probs: torch.Tensor, routing_map: torch.Tensor, num_out_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    experts, tokens = routing_map.bool().T.nonzero(as_tuple=True)
    return inp[tokens], probs[tokens, experts], tokens


def moe_unpermute(
    inp: torch.Tensor,
    row_id_map: torch.Tensor,
    merging_probs: torch.Tensor | None = None,
    restore_shape: Any = None,
    map_type: str = "mask",
    probs: torch.Tensor | None = None,
    pad_offsets: torch.Tensor | None = None,
) -> torch.Tensor:
    assert map_type == "mask" and merging_probs is None and probs is None and pad_offsets is None
    return inp.new_zeros(restore_shape).index_add(0, row_id_map, inp)


def _order(split_sizes: torch.Tensor, sorted_index: torch.Tensor) -> torch.Tensor:
    chunks = torch.arange(int(split_sizes.sum())).split(split_sizes.flatten().tolist())
    return torch.cat([chunks[number] for number in sorted_index.tolist()])


def moe_sort_chunks_by_index(inp: torch.Tensor, split_sizes: torch.Tensor, sorted_index: torch.Tensor) -> torch.Tensor:
    return inp[_order(split_sizes, sorted_index)]


def moe_sort_chunks_by_index_with_probs(
    inp: torch.Tensor, probs: torch.Tensor, split_sizes: torch.Tensor, sorted_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    order = _order(split_sizes, sorted_index)
    return inp[order], probs[order]
