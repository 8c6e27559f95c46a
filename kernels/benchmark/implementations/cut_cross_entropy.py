"""Apple's Cut Cross-Entropy, if the package cut-cross-entropy is installed."""

import importlib
from dataclasses import dataclass

from acc_megatron.kernels.benchmark.costs import Case, Cost, Phase, main_grad_bytes
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable


@dataclass(frozen=True)
class CutCrossEntropy:
    """`cut_cross_entropy.linear_cross_entropy`; "cce" drops small gradients, "cce_exact" does not."""

    name: str
    preset: str
    package = "cut-cross-entropy"
    shards_vocabulary = True
    gradient_in_forward = False

    def load(self, device: str) -> Loss:
        """Needs a GPU and cut-cross-entropy."""
        if device != "cuda":
            raise Unavailable("needs a GPU")
        function = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        return lambda hidden, weight, targets: function(hidden, weight, targets, reduction="sum", impl=self.preset)

    def cost(self, case: Case) -> Cost:
        """Supervised rows, logits in registers only, dense gradients of both operands (git d42911f), no filter."""
        product = 2 * case.supervised * case.vocab * case.hidden
        rows, weight, dense = (
            count * case.hidden * case.element_bytes for count in (case.supervised, case.vocab, case.tokens)
        )
        phases = (
            Phase("logits", product, rows + weight),
            # each tile is added to both gradients, which other tiles add to as well
            Phase("gradients", 3 * product, rows + weight + dense + 2 * weight),
            Phase("add to main_grad", 0, weight + main_grad_bytes(case)),
        )
        return Cost(phases, dense + weight)
