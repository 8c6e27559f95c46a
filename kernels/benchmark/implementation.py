"""The protocol of a benchmarked implementation of the loss. One file per implementation, listed in `registry.py`."""

from collections.abc import Callable
from typing import Protocol

import torch

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.kernels.benchmark.costs import Case, Cost

# hidden [tokens, hidden], weight [vocab, hidden] with a float32 `main_grad`, targets [tokens] int64, -100 where
# unsupervised -> the loss sum, differentiable with respect to hidden and weight. A gradient of the weight that autograd
# returns is added to `main_grad` by the benchmark, within the time of the backward pass.
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Unavailable(EnvironmentProblem):
    """An implementation cannot run on this machine; the message is the reason."""


class Implementation(Protocol):
    """One way to compute the loss, as the benchmark measures it and the table of costs lists it."""

    @property
    def name(self) -> str:
        """The name in tables and CSV files."""
        ...

    @property
    def package(self) -> str:
        """The distribution that is measured; rows contain its version."""
        ...

    @property
    def shards_vocabulary(self) -> bool:
        """False if every rank needs the full vocabulary."""
        ...

    @property
    def gradient_in_forward(self) -> bool:
        """True if the forward pass computes gradients; then only both passes together are reported."""
        ...

    def load(self, device: str) -> Loss:
        """The loss function for "cpu" or "cuda". Raises Unavailable, or what the import of its package raises."""
        ...

    def cost(self, case: Case) -> Cost | None:
        """Arithmetic and memory by formula, None if they are not known."""
        ...
