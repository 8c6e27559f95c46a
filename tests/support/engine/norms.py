"""RMSNorm, forward and backward; arithmetic in float32, as the kernels' compute type."""

from typing import Any

import torch

from support.engine.module import emulated, torch_dtype
from support.engine.quantization import quantize


@emulated
def rmsnorm_fwd(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    ln_out: Any,
    quantizer: Any,
    otype: Any,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> tuple[Any, None, torch.Tensor]:
    """`(y, None, 1 / rms [rows])` of `input [rows, hidden]`, y quantized where a quantizer is given."""
    assert not zero_centered_gamma
    x = input.float()
    reciprocal = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    y: Any = (x * reciprocal * weight.float()).to(torch_dtype(otype, input.dtype))
    if quantizer is not None:
        y = quantize(y, quantizer, ln_out)
    elif ln_out is not None:
        y = ln_out.copy_(y)
    return y, None, reciprocal.flatten()


@emulated
def rmsnorm_bwd(
    dz: torch.Tensor,
    x: torch.Tensor,
    rsigma: torch.Tensor,
    gamma: torch.Tensor,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and gamma."""
    assert not zero_centered_gamma
    reciprocal = rsigma.view(*x.shape[:-1], 1)
    normalized, gradient = x.float() * reciprocal, dz.float()
    gamma_gradient = (gradient * normalized).flatten(0, -2).sum(0)
    scaled = gradient * gamma.float()
    x_gradient = reciprocal * (scaled - normalized * (scaled * normalized).mean(-1, keepdim=True))
    return x_gradient.to(x.dtype), gamma_gradient.to(gamma.dtype)
