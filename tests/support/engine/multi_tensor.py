"""Norm, scale, Adam and SGD over lists of tensors, as `multi_tensor_applier` calls them."""

from collections.abc import Sequence

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
    masters = tensor_lists[4] if len(tensor_lists) == 5 else tensor_lists[1]
    for gradient, parameter, first, second, master in zip(*tensor_lists[:4], masters, strict=True):
        g, m, v = gradient.float(), first.float(), second.float()
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g.square()
        denominator = (v / (1 - beta2**step)).sqrt() + epsilon
        weight = master.float()
        weight = weight - lr * (m / (1 - beta1**step) / denominator + weight_decay * weight)
        for target, value in ((first, m), (second, v), (master, weight), (parameter, weight)):
            target.copy_(value)


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
