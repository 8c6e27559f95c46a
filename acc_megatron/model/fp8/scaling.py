"""Scales for FP8, and rounding to eight bits and back, on any device.

The formulas are Transformer Engine 2.20's: `_default_sf_compute` (pytorch/quantization.py) and
custom_recipes/reference_current_scaling.py for whole tensors, powers of two for blocks of 128 (the recipe's default),
and exponents rounded up for MXFP8 (OCP MX 1.0, whose scales are E8M0). Values beyond the format's largest value are
saturated to it.
"""

from collections.abc import Callable

import torch

FORMATS = {
    "e4m3": {"forward": torch.float8_e4m3fn, "backward": torch.float8_e4m3fn},
    "hybrid": {"forward": torch.float8_e4m3fn, "backward": torch.float8_e5m2},
}
_FLOAT32_MAX = torch.finfo(torch.float32).max


def tensor_scale(amax: torch.Tensor, dtype: torch.dtype, previous: torch.Tensor | None = None) -> torch.Tensor:
    """Return largest value of `dtype` / amax, float32 in amax's shape.

    Where amax is 0, inf or nan, the scale is the previous one, or 1.
    """
    kept = torch.ones_like(amax) if previous is None else previous
    scale = torch.where((amax > 0) & amax.isfinite(), torch.finfo(dtype).max / amax, kept)
    return scale.clamp(max=_FLOAT32_MAX)


def power_of_two_scale(amax: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the largest power of two that does not exceed largest value / amax; 1 where amax is 0."""
    scale = tensor_scale(amax, dtype)
    _, exponent = torch.frexp(scale)  # scale = m x 2^exponent with 0.5 <= m < 1
    return torch.ldexp(torch.ones_like(scale), exponent - 1)


def mx_scale(amax: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return 1 / 2^e with e = ceil(log2(amax / largest value)), clamped to E8M0's range of -127 to 127."""
    mantissa, exponent = torch.frexp(amax / torch.finfo(dtype).max)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    exponent = torch.where(amax == 0, torch.full_like(exponent, -127), exponent).clamp(-127, 127)
    return torch.ldexp(torch.ones_like(amax), -exponent)


def round_trip(matrix: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the float32 matrix cast to `dtype` under a scale and back; saturating."""
    largest = torch.finfo(dtype).max
    return (matrix * scale).clamp(-largest, largest).to(dtype).to(torch.float32) / scale


def round_trip_blocks(
    matrix: torch.Tensor,
    block: tuple[int, int],
    dtype: torch.dtype,
    block_scale: Callable[[torch.Tensor, torch.dtype], torch.Tensor],
) -> torch.Tensor:
    """Return a float32 `[rows, columns]` matrix after a round trip in which each block has its own scale.

    `block` is (rows, columns); blocks at the end may be smaller. `block_scale(amax, dtype)` gives the scales.
    """
    rows, columns = matrix.shape
    if not matrix.numel():
        return matrix
    high, wide = block
    padded = torch.nn.functional.pad(matrix, (0, -columns % wide, 0, -rows % high))
    blocks = padded.view(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
    scale = block_scale(blocks.abs().amax((1, 3), keepdim=True), dtype)
    return round_trip(blocks, scale, dtype).view_as(padded)[:rows, :columns]
