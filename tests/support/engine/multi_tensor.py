"""Norm, scale, Adam and SGD over lists of tensors, as `multi_tensor_applier` calls them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from support.engine.module import emulated

Lists = Sequence[Sequence[torch.Tensor]]


@emulated
def multi_tensor_l2norm(
    chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, per_tensor: bool | None = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(norm of all [1], norm of each [tensors])` in float32; the second is empty unless asked for."""
    squares = [tensor.float().square().sum() for tensor in tensor_lists[0]]
    each = torch.stack(squares) if squares else torch.zeros(0)
    return each.sum().sqrt().reshape(1), each.sqrt() if per_tensor else torch.zeros(0)


@emulated
def multi_tensor_scale(chunk_size: int, is_infinite: torch.Tensor, tensor_lists: Lists, scale: float) -> None:
    """Write `scale x` each tensor of the first list into the second; set the flag if a value is not finite."""
    for source, target in zip(*tensor_lists, strict=True):
        if not source.isfinite().all():
            is_infinite.fill_(1)
        target.copy_(source.float() * scale)


@emulated
def multi_tensor_scale_tensor(
    chunk_size: int, is_infinite: torch.Tensor, tensor_lists: Lists, scale: torch.Tensor
) -> None:
    """The same with the factor in a tensor `[1]`."""
    multi_tensor_scale(chunk_size, is_infinite, tensor_lists, float(scale))


def adamw(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
    step: int,
    weight_decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the updated weight and moments, float32; operations in the order of adam.cu of TE."""
    m = betas[0] * moments[0] + (1 - betas[0]) * gradient
    v = betas[1] * moments[1] + (1 - betas[1]) * gradient.square()
    denominator = (v / (1 - betas[1] ** step)).sqrt() + epsilon
    return weight - lr * (m / (1 - betas[0] ** step) / denominator + weight_decay * weight), m, v


@emulated
def multi_tensor_adam(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: Lists,
    lr: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    mode: int,
    bias_correction: int,
    weight_decay: float,
) -> None:
    """AdamW in place over lists of gradients, parameters, both moments and, where given, float32 master parameters."""
    assert mode == 1 and bias_correction == 1, "AdamW (arXiv 1711.05101) with bias correction only"
    settings: Any = {"lr": lr, "betas": (beta1, beta2), "epsilon": epsilon, "step": step, "weight_decay": weight_decay}
    masters = tensor_lists[4] if len(tensor_lists) == 5 else tensor_lists[1]
    for gradient, parameter, first, second, master in zip(*tensor_lists[:4], masters, strict=True):
        weight, m, v = adamw(master.float(), gradient.float(), (first.float(), second.float()), **settings)
        for target, value in ((first, m), (second, v), (master, weight), (parameter, weight)):
            target.copy_(value)


@emulated
def multi_tensor_adam_param_remainder(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: Lists,
    lr: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    mode: int,
    bias_correction: int,
    weight_decay: float,
) -> None:
    """The same with bfloat16 parameters whose lower 16 bits are in the last list, as int16.

    A remainder below 0 says that the upper half was increased by 1 when the float32 number was divided.
    """
    assert mode == 1 and bias_correction == 1, "AdamW (arXiv 1711.05101) with bias correction only"
    settings: Any = {"lr": lr, "betas": (beta1, beta2), "epsilon": epsilon, "step": step, "weight_decay": weight_decay}
    for gradient, parameter, first, second, remainder in zip(*tensor_lists, strict=True):
        halves = np.stack([remainder.numpy(), parameter.view(torch.int16).numpy()], axis=-1)  # little endian
        halves[..., 1] -= halves[..., 0] < 0
        master = torch.from_numpy(halves.view(np.float32)[..., 0])
        weight, m, v = adamw(master, gradient.float(), (first.float(), second.float()), **settings)
        halves = weight.numpy()[..., None].view(np.int16)
        remainder.copy_(torch.from_numpy(halves[..., 0].copy()))
        parameter.view(torch.int16).copy_(torch.from_numpy(halves[..., 1] + (halves[..., 0] < 0)))
        first.copy_(m)
        second.copy_(v)


@emulated
def multi_tensor_sgd(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: Lists,
    wd: float,
    momentum: float,
    dampening: float,
    lr: float,
    nesterov: bool,
    first_run: bool,
    wd_after_momentum: bool,
    scale: float,
) -> None:
    """SGD without momentum in place over lists of gradients and parameters."""
    assert not momentum and len(tensor_lists) == 3
    for gradient, parameter in zip(*tensor_lists[:2], strict=True):
        weight = parameter.float()
        parameter.copy_(weight - lr * (gradient.float() * scale + wd * weight))
