"""A repair of Transformer Engine's FusedAdam for moments in fp8 that are 0 everywhere."""

from typing import Any

import torch


def keep_zeros(optimizer: Any) -> None:
    """Store 0 where the largest value of a tensor is 0.

    FusedAdam (2.20) divides by the largest value; if it is 0, as for an expert that no token reached, the product
    of 0 and infinity is stored, which is not a number.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        inner = getattr(part, "optimizer", None)
        apply_scale = getattr(inner, "_apply_scale", None)
        if inner is not None and apply_scale is not None:
            inner._apply_scale = _guarded(apply_scale)


def _guarded(apply_scale: Any) -> Any:
    def guarded(name: str, unscaled: torch.Tensor, scaled: Any, scale: torch.Tensor) -> None:
        apply_scale(name, unscaled, scaled, scale)
        if hasattr(scaled, "_scale_inv"):
            # no comparison on the host, which would wait for the GPU
            scaled._data.masked_fill_(scale < torch.finfo(torch.float32).tiny, 0)

    return guarded
