"""What every op refuses before a kernel starts; each message names the argument, its value and what is allowed."""

import math
from collections.abc import Sequence

import torch

from acc_megatron.errors import ArgumentError

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
WEIGHT_DTYPES = (*FLOATS, torch.bool, torch.uint8, torch.int64)


def check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
) -> None:
    """Refuse another shape (None allows any size), dtype or device, and a tensor that is not contiguous."""
    if tensor.dim() != len(shape) or any(
        want not in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
    ):
        allowed = ", ".join("any" if size is None else str(size) for size in shape)
        raise ArgumentError(f"{name} has shape {list(tensor.shape)}; allowed: [{allowed}]")
    if tensor.dtype not in dtypes:
        raise ArgumentError(f"{name} has dtype {tensor.dtype}; allowed: {', '.join(map(str, dtypes))}")
    if tensor.device != device:
        raise ArgumentError(f"{name} is on {tensor.device}; allowed: {device}, where the first argument is")
    if not tensor.is_contiguous():
        raise ArgumentError(f"{name} has strides {list(tensor.stride())}; allowed: a contiguous tensor")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among `allowed`."""
    if value not in allowed:
        raise ArgumentError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside `low`..`high`, and one that is not finite."""
    if not (low <= value <= high and math.isfinite(value)):
        raise ArgumentError(f"{name} is {value}; allowed: finite, {low} to {high}")


def value_problem(targets: torch.Tensor, token_weights: torch.Tensor, vocab: int) -> ArgumentError | None:
    """What is wrong with the values of targets `[tokens]` and token_weights `[tokens]`, if anything.

    A target counts only where its weight is not zero. Returned, not raised: under sequence parallelism the ranks
    must agree to stop, or the others would wait for ever.
    """
    if not len(targets):
        return None
    used = token_weights != 0
    bad_weight = ~((token_weights >= 0) & (token_weights < math.inf))
    bad_target = used & ((targets < 0) | (targets >= vocab))
    first_weight, first_target, any_weight, any_target = torch.stack(
        [bad_weight.int().argmax(), bad_target.int().argmax(), bad_weight.any().long(), bad_target.any().long()]
    ).tolist()
    if any_weight:
        value = token_weights[first_weight].item()
        return ArgumentError(f"token_weights[{first_weight}] is {value}; allowed: finite, 0 or more")
    if any_target:
        value = targets[first_target].item()
        return ArgumentError(f"targets[{first_target}] is {value}; allowed: 0 to {vocab - 1} where the weight is not 0")
    return None
