"""How many tokens each expert of each layer was given, counted where the router decides."""

from typing import Any

import torch
from megatron.core.transformer.moe.router import TopKRouter


class ExpertLoads:
    """Counts the router's choices of this rank's layers over a step.

    Every rank holds other tokens of its layers, so the sum over the world is exact: tokens x top-k for each layer,
    the padding of rows included, as the experts compute it too. A layer that is recomputed counts once, since its
    first pass runs without gradients.
    """

    def __init__(self, models: list[torch.nn.Module], num_layers: int, num_experts: int) -> None:
        device = torch.cuda.current_device()
        self.counts = torch.zeros(num_layers, num_experts, dtype=torch.int64, device=device)
        for module in (module for model in models for module in model.modules() if isinstance(module, TopKRouter)):
            module.register_forward_hook(self._count)

    def _count(self, router: Any, inputs: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            self.counts[router.layer_number - 1] += output[1].detach().sum(0)

    def take(self) -> torch.Tensor:
        """The counts since the last call, `[layers, experts]` int64."""
        taken = self.counts
        self.counts = torch.zeros_like(taken)
        return taken


def load_values(totals: torch.Tensor) -> dict[str, list[float] | list[int]]:
    """Of the world's counts `[layers, experts]`: each layer's fullest expert over its mean, and its dead."""
    mean = totals.double().mean(1).clamp(min=1e-9)
    ratios = (totals.double().amax(1) / mean).tolist()
    return {
        "expert_load_max_over_mean": [round(ratio, 4) for ratio in ratios],
        "dead_experts": (totals == 0).sum(1).tolist(),
    }
