"""The Triton launchers of MoE permutation in `transformer_engine.pytorch.triton.permutation`, in torch.

Triton's interpreter runs the originals too, but its sort of one token's experts takes seconds for a row.
"""

from typing import Any

import torch


def make_row_id_map(routing_map: torch.Tensor, num_tokens: int, num_experts: int) -> torch.Tensor:
    """`[tokens, 2 experts + 1]` int32: rows of a token's copies, in descending order, their experts, their number."""
    routed = routing_map.bool()
    row = (routed.T.flatten().cumsum(0) - 1).view(num_experts, num_tokens).T
    rows, experts = torch.where(routed, row, -1).sort(1, descending=True)
    return torch.cat((rows, experts, routed.sum(1, keepdim=True)), 1).int()


def _copies(row_id_map: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token, row and expert of every copy."""
    used = torch.arange(num_experts)[None] < row_id_map[:, -1:]
    token = torch.arange(len(row_id_map))[:, None].expand(-1, num_experts)[used]
    return token, row_id_map[:, :num_experts][used].long(), row_id_map[:, num_experts:-1][used].long()


def permute_with_mask_map(
    inp: torch.Tensor,
    row_id_map: torch.Tensor,
    probs: torch.Tensor | None,
    scale: Any,
    pad_offsets: Any,
    num_tokens: int,
    num_experts: int,
    num_out_tokens: int,
    hidden_size: int,
    scale_hidden_dim: int,
) -> tuple[torch.Tensor, None, torch.Tensor | None]:
    """Copies of `inp [tokens, hidden]` by expert, and their probabilities."""
    assert scale is None and pad_offsets is None
    token, row, expert = _copies(row_id_map, num_experts)
    output = inp.new_empty(num_out_tokens, hidden_size)
    output[row] = inp[token]
    if probs is None:
        return output, None, None
    permuted = probs.new_empty(num_out_tokens)
    permuted[row] = probs[token, expert]
    return output, None, permuted


def unpermute_with_mask_map(
    inp: torch.Tensor,
    row_id_map: torch.Tensor,
    merging_probs: Any,
    permuted_probs: torch.Tensor | None,
    pad_offsets: Any,
    num_tokens: int,
    num_experts: int,
    hidden_size: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The sum of each token's copies, added in float32."""
    assert merging_probs is None and pad_offsets is None
    token, row, expert = _copies(row_id_map, num_experts)
    output = torch.zeros(num_tokens, hidden_size).index_add_(0, token, inp[row].float()).to(inp.dtype)
    if permuted_probs is None:
        return output, None
    probs = permuted_probs.new_zeros(num_tokens, num_experts)
    probs[token, expert] = permuted_probs[row]
    return output, probs


def make_chunk_sort_map(
    split_sizes: torch.Tensor, sorted_indices: torch.Tensor, num_tokens: int, num_splits: int
) -> torch.Tensor:
    """`[tokens]` int32: where each row goes when chunks of `split_sizes` stand in the order `sorted_indices`."""
    chunks = torch.arange(num_tokens).split(split_sizes.flatten().tolist())
    order = torch.cat([chunks[number] for number in sorted_indices.tolist()])
    target = torch.empty(num_tokens, dtype=torch.int32)
    target[order] = torch.arange(num_tokens, dtype=torch.int32)
    return target


def sort_chunks_by_map(
    inp: torch.Tensor,
    row_id_map: torch.Tensor,
    probs: torch.Tensor | None,
    num_tokens: int,
    hidden_size: int,
    is_forward: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows, and their probabilities, moved as the map says, or moved back."""
    order = row_id_map.long().argsort() if is_forward else row_id_map.long()
    return inp[order], None if probs is None else probs[order]
