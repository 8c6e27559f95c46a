"""A repair of Transformer Engine's FusedAdam for moments in fp8 that are 0 everywhere."""

from typing import Any

import torch


def keep_zeros(adam: Any) -> None:
    """Make FusedAdam store 0 where the largest value of a tensor is 0; nothing happens to other optimizers.

    FusedAdam (2.20) divides by the largest value; if it is 0, as for an expert that no token reached, the product
    of 0 and infinity is stored, which is not a number.
    """
    apply_scale = getattr(adam, "_apply_scale", None)
    if apply_scale is not None:
        adam._apply_scale = _guarded(apply_scale)


def _guarded(apply_scale: Any) -> Any:
    def guarded(name: str, unscaled: torch.Tensor, scaled: Any, scale: torch.Tensor) -> None:
        apply_scale(name, unscaled, scaled, scale)
        if hasattr(scaled, "_scale_inv"):
            # no comparison on the host, which would wait for the GPU
            scaled._data.masked_fill_(scale < torch.finfo(torch.float32).tiny, 0)

    return guarded
