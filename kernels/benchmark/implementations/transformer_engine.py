"""Transformer Engine's cross entropy of given logits, if Transformer Engine is installed."""

import importlib

import torch
import torch.nn.functional as F

from acc_megatron.kernels.benchmark.costs import Case, Cost, cost_of_full_logits
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable


class TransformerEngine:
    """`parallel_cross_entropy` on full logits."""

    name = "Transformer Engine"
    package = "transformer-engine"
    shards_vocabulary = True
    gradient_in_forward = False

    def load(self, device: str) -> Loss:
        """Needs a GPU and Transformer Engine."""
        if device != "cuda":
            raise Unavailable("needs a GPU")
        function = importlib.import_module("transformer_engine.pytorch.cross_entropy").parallel_cross_entropy

        def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return function(F.linear(hidden, weight)[None], targets[None], 0.0, False, None, -100).sum()

        return loss

    def cost(self, case: Case) -> Cost:
        """Read in the source of Transformer Engine 2.20.2."""
        return cost_of_full_logits(
            case, bytes_held_per_logit=2 * case.element_bytes, pointwise_bytes_per_logit=4 * case.element_bytes
        )
