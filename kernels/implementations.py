"""Every implementation of the loss that the benchmark compares: ours, plain code, the ideas of peers, and peers.

Each takes hidden `[tokens, hidden]`, weight `[vocab, hidden]` and targets `[tokens]`, -100 where unsupervised, and
returns the loss sum, differentiable by both.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from acc_megatron.kernels.costs import LIGER_CHUNK_ROWS
from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Full logits in float32, then cross entropy."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


def compact(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Supervised rows first, then plain: one line, and most of the gain."""
    rows = (targets >= 0).nonzero().squeeze(1)
    return plain(hidden[rows], weight, targets[rows])


def chunked(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Liger's idea in plain torch: chunks of all rows, gradients in forward."""
    return _Chunked.apply(hidden, weight, targets)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        dhidden, dweight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), LIGER_CHUNK_ROWS):
            chunk = slice(start, start + LIGER_CHUNK_ROWS)
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


def _ours(plan: str, name: str = "auto") -> Loss:
    def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        buffer = getattr(weight, "main_grad", None)
        weights = targets >= 0
        return masked_linear_cross_entropy(
            hidden, weight, targets, weights, plan=plan, main_grad=buffer, implementation=name
        )[0]

    return loss


def _torch_fused(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.linear_cross_entropy(hidden, weight, targets, reduction="sum")


def implementations(device: str) -> dict[str, Loss]:
    """By name, those that can run here. A peer counts as absent whatever its import raises."""
    found: dict[str, Loss] = {
        "plain": plain,
        "compact + plain": compact,
        "chunked": chunked,
        "ours, keep": _ours("keep"),
        "ours, recompute": _ours("recompute"),
    }
    if device == "cuda":
        found["reference"] = _ours("keep", "torch")
    if hasattr(F, "linear_cross_entropy"):
        found["torch linear_cross_entropy"] = _torch_fused
    if device == "cuda":
        for name, load in {
            "Liger": _liger,
            "Cut Cross-Entropy": _cut,
            "Transformer Engine": _transformer_engine,
        }.items():
            try:
                found[name] = load()
            except Exception:
                # an absent peer, or one built for another torch: a benchmark of ours must not depend on it
                continue
    return found


def _liger() -> Loss:
    function = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    return lambda hidden, weight, targets: function(hidden, weight, targets, reduction="sum")


def _cut() -> Loss:
    function = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    return lambda hidden, weight, targets: function(hidden, weight, targets, reduction="sum")


def _transformer_engine() -> Loss:
    function = importlib.import_module("transformer_engine.pytorch.cross_entropy").parallel_cross_entropy

    def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return function(F.linear(hidden, weight)[None], targets[None], 0.0, False, None, -100).sum()

    return loss
