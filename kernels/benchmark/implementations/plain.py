"""The textbook loss: full logits in float32, then cross entropy."""

import torch
import torch.nn.functional as F

from acc_megatron.kernels.benchmark.costs import Case, Cost, cost_of_full_logits
from acc_megatron.kernels.benchmark.implementation import Loss


def plain_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Full logits in float32, then cross entropy."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


class Plain:
    """Full logits of every row; all ratios of the benchmark are relative to this."""

    name = "plain"
    package = "torch"
    shards_vocabulary = True
    gradient_in_forward = False

    def load(self, device: str) -> Loss:
        """Runs everywhere."""
        return plain_loss

    def cost(self, case: Case) -> Cost:
        """Log-softmax, its gradient and the gradient of the loss are float32."""
        # two casts, log-softmax (read, write), gradient of the loss (write), of log-softmax (2 reads, write)
        casts = 2 * (case.element_bytes + 4) if case.element_bytes < 4 else 0
        return cost_of_full_logits(case, bytes_held_per_logit=12, pointwise_bytes_per_logit=casts + 24)
