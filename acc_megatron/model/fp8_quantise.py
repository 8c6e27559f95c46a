"""What FP8 does to a matrix, on any device: each recipe's scaling, then to eight bits and back.

Formulas are Transformer Engine 2.20's: scales of whole tensors `_default_sf_compute` (pytorch/quantization.py) and
custom_recipes/reference_current_scaling.py; powers of two for blocks of 128 (the recipe's default); exponents rounded
up for MXFP8 (OCP MX 1.0, whose scales are E8M0). Values beyond the format's largest are saturated to it.
"""

from typing import Literal

import torch

BLOCK, MX_BLOCK = 128, 32
TensorRole = Literal["input", "weight", "gradient"]
FORMATS = {
    "e4m3": {"forward": torch.float8_e4m3fn, "backward": torch.float8_e4m3fn},
    "hybrid": {"forward": torch.float8_e4m3fn, "backward": torch.float8_e5m2},
}
_FLOAT32_MAX = torch.finfo(torch.float32).max


def tensor_scale(amax: torch.Tensor, dtype: torch.dtype, previous: torch.Tensor | None = None) -> torch.Tensor:
    """largest / amax, float32 of amax's shape; where amax is 0, inf or nan the previous scale, or 1."""
    kept = torch.ones_like(amax) if previous is None else previous
    scale = torch.where((amax > 0) & amax.isfinite(), torch.finfo(dtype).max / amax, kept)
    return scale.clamp(max=_FLOAT32_MAX)


def power_of_two_scale(amax: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The power of two at or below largest / amax, as the blocks of 128 have it; 1 where amax is 0."""
    scale = tensor_scale(amax, dtype)
    _, exponent = torch.frexp(scale)  # scale = m x 2^exponent with m from 0.5 to 1
    return torch.ldexp(torch.ones_like(scale), exponent - 1)


def mx_scale(amax: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """1 / 2^e with e = ceil(log2(amax / largest)) from -127 to 127, as E8M0 holds it."""
    mantissa, exponent = torch.frexp(amax / torch.finfo(dtype).max)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    exponent = torch.where(amax == 0, torch.full_like(exponent, -127), exponent).clamp(-127, 127)
    return torch.ldexp(torch.ones_like(amax), -exponent)


def round_trip(matrix: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The float32 matrix after a cast to `dtype` under a scale and back; saturating."""
    largest = torch.finfo(dtype).max
    return (matrix * scale).clamp(-largest, largest).to(dtype).to(torch.float32) / scale


def round_trip_blocks(
    matrix: torch.Tensor, block: tuple[int, int], dtype: torch.dtype, *, is_mx: bool = False
) -> torch.Tensor:
    """Each block `(rows, columns)` of a float32 `[R, C]` under a scale of its own; ragged blocks at the end count."""
    rows, columns = matrix.shape
    if not matrix.numel():
        return matrix
    high, wide = block
    padded = torch.nn.functional.pad(matrix, (0, -columns % wide, 0, -rows % high))
    blocks = padded.view(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
    amax = blocks.abs().amax((1, 3), keepdim=True)
    scale = mx_scale(amax, dtype) if is_mx else power_of_two_scale(amax, dtype)
    return round_trip(blocks, scale, dtype).view_as(padded)[:rows, :columns]


def quantise(
    matrix: torch.Tensor, role: TensorRole, dtype: torch.dtype, recipe: str, *, along: int, scale: torch.Tensor | None
) -> torch.Tensor:
    """An operand of a matrix product as FP8 sees it, float32 of the same shape.

    `recipe` is Megatron's name; blocks lie along the dim that the product sums over. `scale` is the delayed one.
    """
    matrix = matrix.float()
    if recipe == "delayed":
        assert scale is not None
        return round_trip(matrix, scale, dtype)
    if recipe == "tensorwise":
        amax = matrix.abs().amax() if matrix.numel() else matrix.new_zeros(())
        return round_trip(matrix, tensor_scale(amax, dtype), dtype)
    if recipe == "blockwise" and role == "weight":
        return round_trip_blocks(matrix, (BLOCK, BLOCK), dtype)
    size = MX_BLOCK if recipe == "mxfp8" else BLOCK
    block = (1, size) if along == 1 else (size, 1)
    return round_trip_blocks(matrix, block, dtype, is_mx=recipe == "mxfp8")
