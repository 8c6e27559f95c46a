"""Liger's fused linear cross entropy, if the package liger-kernel is installed."""

import importlib
from dataclasses import dataclass

import torch

from acc_megatron.kernels.benchmark.costs import Case, Cost
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable
from acc_megatron.kernels.benchmark.implementations.chunked import Chunked


@dataclass(frozen=True)
class Liger:
    """`liger_fused_linear_cross_entropy`, with its default sums in the dtype of the weight or with float32 sums."""

    name: str = "Liger"
    sum_dtype: torch.dtype | None = None
    package = "liger-kernel"
    shards_vocabulary = False
    gradient_in_forward = True

    def load(self, device: str) -> Loss:
        """Needs a GPU and liger-kernel."""
        if device != "cuda":
            raise Unavailable("needs a GPU")
        function = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
        return lambda hidden, weight, targets: function(
            hidden, weight, targets, reduction="sum", accum_dtype=self.sum_dtype
        )

    def cost(self, case: Case) -> Cost | None:
        """Read in the source of Liger 0.8.5, which "chunked" repeats in plain torch; of the default sums only."""
        return Chunked().cost(case) if self.sum_dtype is None else None
