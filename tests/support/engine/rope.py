"""Rotary positions of packed rows (THD), by zig-zag chunks of each document under context parallelism."""

import torch

from support.engine.enumerations import ENUMERATIONS
from support.engine.module import emulated

THD = ENUMERATIONS["NVTE_QKV_Format"]["NVTE_THD"]


def _positions(cu_seqlens: torch.Tensor, num_ranks: int, rank: int) -> torch.Tensor:
    """The position inside its document of every token that a context-parallel rank stores."""
    bounds = cu_seqlens.tolist()
    parts = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        half = (end - start) // num_ranks // 2
        if num_ranks == 1:
            parts.append(torch.arange(end - start))
        else:
            parts += [torch.arange(half) + half * chunk for chunk in (rank, 2 * num_ranks - 1 - rank)]
    return torch.cat(parts)


def _rotate(
    t: torch.Tensor,
    freqs: torch.Tensor,
    qkv_format: int,
    interleaved: bool,
    cu: torch.Tensor,
    size: int,
    rank: int,
    sign: int,
) -> torch.Tensor:
    assert not interleaved and int(qkv_format) == THD and freqs.dtype == torch.float32
    angles = freqs[_positions(cu, size, rank), 0]
    x = t.float()
    rotated, kept = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
    first, second = rotated.chunk(2, -1)
    turned = rotated * angles.cos() + torch.cat((-second, first), -1) * (sign * angles.sin())
    return torch.cat((turned, kept), -1).to(t.dtype)


@emulated
def fused_rope_forward(
    input: torch.Tensor,
    freqs: torch.Tensor,
    start_positions: torch.Tensor | None,
    qkv_format: int,
    interleaved: bool,
    cu_seqlens: torch.Tensor,
    cp_size: int,
    cp_rank: int,
) -> torch.Tensor:
    """Rotate `[tokens, heads, head_dim]` by the angles `freqs [positions, 1, 1, rotated dims]`."""
    assert start_positions is None
    return _rotate(input, freqs, qkv_format, interleaved, cu_seqlens, cp_size, cp_rank, 1)


@emulated
def fused_rope_backward(
    output_grads: torch.Tensor,
    freqs: torch.Tensor,
    start_positions: torch.Tensor | None,
    qkv_format: int,
    interleaved: bool,
    cu_seqlens: torch.Tensor,
    cp_size: int,
    cp_rank: int,
) -> torch.Tensor:
    """Rotate the gradient back."""
    assert start_positions is None
    return _rotate(output_grads, freqs, qkv_format, interleaved, cu_seqlens, cp_size, cp_rank, -1)
