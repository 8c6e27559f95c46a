"""Argument checks that run before any kernel; each message names the argument, its value and what is allowed."""

import math
from collections.abc import Sequence

import torch

from acc_megatron.errors import ArgumentError

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
TARGET_DTYPES = (torch.int64, torch.int32)
WEIGHT_DTYPES = (*FLOATS, torch.bool, torch.uint8, torch.int64)
# the target of an unsupervised token, as in torch's cross entropy
IGNORED_TARGET = -100


def check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
) -> None:
    """Check shape (None allows any size), dtype, device and contiguity. Raises ArgumentError."""
    if tensor.dim() != len(shape) or any(
        expected not in (None, size) for expected, size in zip(shape, tensor.shape, strict=True)
    ):
        allowed = ", ".join("any" if size is None else str(size) for size in shape)
        raise ArgumentError(f"{name} has shape {list(tensor.shape)}; allowed: [{allowed}]")
    if tensor.dtype not in dtypes:
        raise ArgumentError(f"{name} has dtype {tensor.dtype}; allowed: {', '.join(map(str, dtypes))}")
    if tensor.device != device:
        raise ArgumentError(f"{name} is on {tensor.device}; allowed: {device}, the device of the first argument")
    if not tensor.is_contiguous():
        raise ArgumentError(
            f"{name} is not contiguous (strides {list(tensor.stride())}); allowed: a contiguous tensor, "
            f"for example {name}.contiguous()"
        )


def check_tokens(
    targets: torch.Tensor, token_weights: torch.Tensor | None, shape: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check targets and token_weights of `shape`; return both as `[tokens]`, targets int64. Raises ArgumentError.

    Without token_weights, the weight of a token is 1, or 0 if its target is IGNORED_TARGET.
    """
    check_tensor("targets", targets, shape, TARGET_DTYPES, device)
    if token_weights is None:
        token_weights = targets != IGNORED_TARGET
    check_tensor("token_weights", token_weights, shape, WEIGHT_DTYPES, device)
    if token_weights.requires_grad:
        raise ArgumentError(
            "token_weights requires a gradient, which this operation does not compute; allowed: token_weights.detach()"
        )
    return targets.reshape(-1).long(), token_weights.reshape(-1)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Check that `value` is one of `allowed`. Raises ArgumentError."""
    if value not in allowed:
        raise ArgumentError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Check that a number is finite and within `low`..`high`. Raises ArgumentError."""
    if not (low <= value <= high and math.isfinite(value)):
        raise ArgumentError(f"{name} is {value}; allowed: a finite number from {low} to {high}")


def check_values(targets: torch.Tensor, token_weights: torch.Tensor, vocab: int) -> None:
    """Check the values of targets `[tokens]` and token_weights `[tokens]`. Raises ArgumentError for the first bad one.

    A target is checked only where its weight is not zero.
    """
    if not len(targets):
        return
    is_invalid_weight = ~((token_weights >= 0) & (token_weights < math.inf))
    is_invalid_target = (token_weights != 0) & ((targets < 0) | (targets >= vocab))
    # one transfer to the host for all four values
    first_weight, first_target, any_weight, any_target = torch.stack(
        [
            is_invalid_weight.int().argmax(),
            is_invalid_target.int().argmax(),
            is_invalid_weight.any().long(),
            is_invalid_target.any().long(),
        ]
    ).tolist()
    if any_weight:
        value = token_weights[first_weight].item()
        raise ArgumentError(f"token_weights[{first_weight}] is {value}; allowed: a finite number, 0 or larger")
    if any_target:
        value = targets[first_target].item()
        raise ArgumentError(f"targets[{first_target}] is {value}; allowed: 0 to {vocab - 1} where the weight is not 0")
