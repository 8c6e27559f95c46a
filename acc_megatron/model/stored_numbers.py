"""Float32 numbers stored in 8 or 16 bits, as Transformer Engine's FusedAdam (2.20) stores its state.

torch.uint8 stands for float8_e4m3fn. A tensor in fp8 or float16 has one float32 scale `[1]`.
"""

import torch

# the largest value of a tensor is stored as this
RANGES = {torch.uint8: 448.0, torch.float16: torch.finfo(torch.float16).max / 2}
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def read_scaled(stored: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Return float32 values of a stored tensor; uint8 is read as float8_e4m3fn."""
    if stored.dtype is torch.float32:
        return stored
    wide = (stored.view(torch.float8_e4m3fn) if stored.dtype is torch.uint8 else stored).float()
    return wide if scale is None else wide.mul_(scale)


def write_scaled(value: torch.Tensor, stored: torch.Tensor, scale: torch.Tensor | None) -> None:
    """Round float32 values into a stored tensor in place; sets `scale`, if there is one, from the largest value."""
    if scale is None:
        if value is not stored:
            stored.copy_(value)
        return
    largest = value.abs().amax() if value.numel() else torch.zeros(())
    torch.div(largest, RANGES[stored.dtype], out=scale[0])
    inverse = torch.where(scale < SMALLEST_SCALE, 0.0, scale.reciprocal())
    if stored.dtype is not torch.uint8:
        stored.copy_(value * inverse)
        return
    limit = RANGES[torch.uint8]
    stored.view(torch.float8_e4m3fn).copy_((value * inverse).clamp(-limit, limit))
    scale.copy_(torch.where(inverse > 0, inverse.reciprocal(), 0.0))  # as the cast stores it


def join_remainder(weight: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """Return the float32 weights of a bfloat16 tensor and an int16 one with the lower 16 bits."""
    high = weight.view(torch.int16).int() - (remainder < 0).int()  # a negative remainder was rounded up
    return ((high << 16) | (remainder.int() & 0xFFFF)).view(torch.float32)


def split_remainder(value: torch.Tensor, weight: torch.Tensor, remainder: torch.Tensor) -> None:
    """Write float32 weights into a bfloat16 tensor, rounded to nearest, half away from 0, and their lower 16 bits."""
    bits = value.view(torch.int32)
    remainder.copy_(bits.to(torch.int16))
    high = (bits >> 16) + (remainder < 0).int()
    weight.view(torch.int16).copy_(high.to(torch.int16))
