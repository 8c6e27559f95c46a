"""quack's chunked linear cross entropy (Hopper and newer), if the package quack-kernels is installed."""

import importlib

from acc_megatron.kernels.benchmark.costs import Case
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable


class Quack:
    """`chunked_linear_cross_entropy` with its default options."""

    name = "quack"
    package = "quack-kernels"
    shards_vocabulary = False
    gradient_in_forward = True

    def load(self, device: str) -> Loss:
        """Needs a GPU and quack-kernels."""
        if device != "cuda":
            raise Unavailable("needs a GPU")
        function = importlib.import_module("quack.linear_cross_entropy").chunked_linear_cross_entropy
        return lambda hidden, weight, targets: function(hidden, weight, targets, ignore_index=-100, reduction="sum")

    def cost(self, case: Case) -> None:
        """Not known."""
