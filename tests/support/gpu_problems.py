"""Problems for the tests on a GPU, and the operation in one memory mode on them."""

from typing import NamedTuple

import torch

from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy
from support.loss_problems import Answer, Problem, make

MODES = ("keep", "recompute")


class Shape(NamedTuple):
    """Sizes of a problem."""

    tokens: int
    supervised: int
    vocab: int
    hidden: int


def make_on(device: str, shape: Shape, dtype: torch.dtype, *, logit_std: float = 3.0) -> Problem:
    """A problem whose logits have this standard deviation, made on CPU and moved."""
    problem = make(*shape, dtype, weight_scale=logit_std * shape.hidden**-0.5)
    return Problem(*(tensor.to(device) for tensor in problem))


def run(problem: Problem, memory_mode: str, *, with_buffer: bool, z_loss: float = 1e-3) -> Answer:
    """Both passes of the Triton kernels; the gradient of the weight from autograd or from a `main_grad` buffer."""
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    buffer = torch.ones(weight.shape, device=weight.device) if with_buffer else None
    loss, _, log_probability, entropy = masked_linear_cross_entropy(
        hidden,
        weight,
        *problem[2:],
        z_loss=z_loss,
        per_token=True,
        memory_mode=memory_mode,
        main_grad=buffer,
        implementation="triton",
    )
    loss.backward()
    rows = problem.token_weights > 0
    dweight = weight.grad if buffer is None else buffer - 1
    assert hidden.grad is not None and dweight is not None and (hidden.grad[~rows] == 0).all()
    return Answer(loss.detach(), hidden.grad, dweight, log_probability[rows], entropy[rows])
