"""Numbers of tokens that the router sends to each expert of each layer."""

from typing import Any, TypedDict

import torch
from megatron.core.transformer.moe.router import TopKRouter


class ExpertLoads:
    """Counts the tokens routed to each expert in this rank's layers during a step.

    Every rank routes different tokens, so the sum over the world is document tokens x top-k for each layer: padding
    does not count. A recomputed layer counts once, because its first pass runs without gradients.
    """

    def __init__(self, models: list[torch.nn.Module], num_layers: int, num_experts: int) -> None:
        device = torch.cuda.current_device()
        self.counts = torch.zeros(num_layers, num_experts, dtype=torch.int64, device=device)
        for module in (module for model in models for module in model.modules() if isinstance(module, TopKRouter)):
            module.register_forward_hook(self._count)

    def _count(self, router: Any, inputs: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            routing_map, padding = output[1].detach(), inputs[1] if len(inputs) > 1 else None
            if padding is not None:
                routing_map = routing_map & ~padding.reshape(-1, 1)
            self.counts[router.layer_number - 1] += routing_map.sum(0)

    def take(self) -> torch.Tensor:
        """Return the counts since the last call, `[layers, experts]` int64, and reset them."""
        taken = self.counts
        self.counts = torch.zeros_like(taken)
        return taken


class ExpertLoadValues(TypedDict):
    """Logged values with one number per layer."""

    expert_load_max_over_mean: list[float]  # tokens of the busiest expert over the mean
    dead_experts: list[int]  # number of experts without tokens


def load_values(totals: torch.Tensor) -> ExpertLoadValues:
    """Summarise counts `[layers, experts]` of all ranks."""
    mean = totals.double().mean(1).clamp(min=1e-9)
    ratios = (totals.double().amax(1) / mean).tolist()
    return {
        "expert_load_max_over_mean": [round(ratio, 4) for ratio in ratios],
        "dead_experts": (totals == 0).sum(1).tolist(),
    }
