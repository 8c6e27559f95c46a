"""Select the supervised rows, then any other implementation: one more line of code, and most of the gain."""

from dataclasses import dataclass

import torch

from acc_megatron.kernels.benchmark.costs import Case, Cost, row_phases
from acc_megatron.kernels.benchmark.implementation import Implementation, Loss


@dataclass(frozen=True)
class Compacted:
    """An implementation on the supervised rows only."""

    inner: Implementation

    @property
    def name(self) -> str:
        """The name of the inner implementation, marked."""
        return f"{self.inner.name}, compacted"

    @property
    def package(self) -> str:
        """As the inner implementation."""
        return self.inner.package

    @property
    def shards_vocabulary(self) -> bool:
        """As the inner implementation."""
        return self.inner.shards_vocabulary

    @property
    def gradient_in_forward(self) -> bool:
        """As the inner implementation."""
        return self.inner.gradient_in_forward

    def load(self, device: str) -> Loss:
        """Runs where the inner implementation runs."""
        inner = self.inner.load(device)

        def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            rows = (targets >= 0).nonzero().squeeze(1)
            return inner(hidden[rows], weight, targets[rows])

        return loss

    def cost(self, case: Case) -> Cost | None:
        """The cost for the supervised rows, plus compact rows and the dense gradient of hidden states."""
        cost = self.inner.cost(case._replace(tokens=case.supervised))
        if cost is None:
            return None
        select, scatter = row_phases(case, gradient_bytes=case.element_bytes)
        held_bytes = (case.supervised + case.tokens) * case.hidden * case.element_bytes
        return Cost((select, *cost.phases, scatter), cost.peak_bytes + held_bytes)
