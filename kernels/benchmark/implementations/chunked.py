"""Liger's algorithm in plain torch: chunks of rows, and gradients computed in the forward pass."""

from typing import Any

import torch
import torch.nn.functional as F

from acc_megatron.kernels.benchmark.costs import Case, Cost, cost_of_full_logits
from acc_megatron.kernels.benchmark.implementation import Loss


def chunk_rows(tokens: int, vocab: int, hidden: int) -> int:
    """Liger's rule: a power of two, with which the logits of a chunk are about as large as all hidden states."""
    share = -(-vocab // hidden)
    return min(tokens, 1 << (-(-tokens // share) - 1).bit_length()) if tokens else 1


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        dhidden, dweight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        size = chunk_rows(len(hidden), *weight.shape)
        for start in range(0, len(hidden), size):
            chunk = slice(start, start + size)
            logits = F.linear(hidden[chunk], weight).float()
            is_supervised = targets[chunk] >= 0
            columns = targets[chunk].clamp(min=0)[:, None]
            log_sum_exp = logits.logsumexp(1)
            total += ((log_sum_exp - logits.gather(1, columns).squeeze(1)) * is_supervised).sum()
            gradient = logits.sub_(log_sum_exp[:, None]).exp_().mul_(is_supervised[:, None])
            gradient.scatter_add_(1, columns, -is_supervised.to(gradient.dtype)[:, None])
            gradient = gradient.to(weight.dtype)
            torch.mm(gradient, weight, out=dhidden[chunk])
            dweight.addmm_(gradient.T, hidden[chunk])
        ctx.save_for_backward(dhidden, dweight)
        return total

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        return dhidden.mul_(grad_loss), dweight.mul_(grad_loss), None


class Chunked:
    """Chunks of all rows; every row is multiplied, supervised or not."""

    name = "chunked"
    package = "torch"
    shards_vocabulary = False
    gradient_in_forward = True

    def load(self, device: str) -> Loss:
        """Runs everywhere."""
        return _ChunkedLoss.apply

    def cost(self, case: Case) -> Cost:
        """All rows, with the logits of one chunk at a time (Liger 0.8.5)."""
        size = chunk_rows(case.tokens, case.vocab, case.hidden)
        cost = cost_of_full_logits(
            case,
            bytes_held_per_logit=0,
            pointwise_bytes_per_logit=7 * case.element_bytes,
            num_chunks=-(-case.tokens // size),
        )
        return cost._replace(peak_bytes=cost.peak_bytes + size * case.vocab * case.element_bytes)
