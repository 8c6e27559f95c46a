"""torch's own fused function, `torch.nn.functional.linear_cross_entropy` (torch 2.12 and newer)."""

import torch
import torch.nn.functional as F

from acc_megatron.kernels.benchmark.costs import Case
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable


class TorchLinearCrossEntropy:
    """torch's function with `LinearCrossEntropyOptions()`, which turn on its chunks; without them it is plain code."""

    name = "torch linear_cross_entropy"
    package = "torch"
    shards_vocabulary = False
    gradient_in_forward = True

    def load(self, device: str) -> Loss:
        """Needs a torch that has the function and its options."""
        if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
            raise Unavailable(f"torch {torch.__version__} has no LinearCrossEntropyOptions")
        options = torch.nn.LinearCrossEntropyOptions()
        return lambda hidden, weight, targets: F.linear_cross_entropy(
            hidden, weight, targets, reduction="sum", options=options
        )

    def cost(self, case: Case) -> None:
        """Not known."""
