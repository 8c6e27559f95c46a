"""Rotary positions of packed rows, which start anew in each document; a context rank holds two chunks of each."""

import torch


def apply_rotary_pos_emb(
    t: torch.Tensor,
    freqs: torch.Tensor,
    tensor_format: str = "sbhd",
    start_positions: torch.Tensor | None = None,
    interleaved: bool = False,
    fused: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cp_size: int = 1,
    cp_rank: int = 0,
) -> torch.Tensor:
    assert tensor_format == "thd" and cu_seqlens is not None and start_positions is None and not interleaved
    positions = []
    for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        length = end - start
        if cp_size == 1:
            positions.append(torch.arange(length))
            continue
        chunks = torch.arange(length).chunk(2 * cp_size)
        positions += [chunks[cp_rank], chunks[2 * cp_size - 1 - cp_rank]]
    angles = freqs[torch.cat(positions), 0]  # [tokens, 1, head_dim]
    first, second = t.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return t * angles.cos().to(t.dtype) + turned * angles.sin().to(t.dtype)
