"""The op of this package in each memory mode, and its torch reference on a GPU."""

from dataclasses import dataclass

import torch

from acc_megatron.kernels.benchmark.costs import Case, Cost, Phase, main_grad_bytes, row_phases
from acc_megatron.kernels.benchmark.implementation import Loss, Unavailable
from acc_megatron.kernels.masked_linear_cross_entropy.autograd import WINDOW_COLUMNS
from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy


@dataclass(frozen=True)
class Ours:
    """`masked_linear_cross_entropy` in one memory mode."""

    name: str
    memory_mode: str
    backend: str = "auto"
    package = "acc-megatron"
    shards_vocabulary = True
    gradient_in_forward = False

    def load(self, device: str) -> Loss:
        """Runs everywhere; the reference is measured on GPUs only, as it is the "auto" backend on CPU."""
        if self.backend == "torch" and device == "cpu":
            raise Unavailable("on CPU it is the same code as 'ours, keep'")

        def loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return masked_linear_cross_entropy(
                hidden,
                weight,
                targets,
                targets >= 0,
                memory_mode=self.memory_mode,
                main_grad=getattr(weight, "main_grad", None),
                implementation=self.backend,
            )[0]

        return loss

    def cost(self, case: Case) -> Cost:
        """Compact rows, their logits (all columns or one window), and the dense gradient of hidden states."""
        product = 2 * case.supervised * case.vocab * case.hidden
        rows, weight, logits = (
            count * case.element_bytes
            for count in (case.supervised * case.hidden, case.vocab * case.hidden, case.supervised * case.vocab)
        )
        is_kept = self.memory_mode == "keep"
        if is_kept:
            # exponentials are written once, then read and overwritten by the gradient
            first = Phase("logits", product, rows + weight + logits), Phase("gradient of logits", 0, 2 * logits)
        else:
            # only gradients reach memory
            first = (
                Phase("logits", product, rows + weight),
                Phase("gradient of logits", product, rows + weight + logits),
            )
        select, scatter = row_phases(case, gradient_bytes=4)
        products = (
            Phase("gradient of hidden states", product, logits + weight + 4 * case.supervised * case.hidden),
            Phase("gradient of weight", product, logits + rows + main_grad_bytes(case)),
        )
        columns = case.vocab if is_kept else min(WINDOW_COLUMNS, case.vocab)
        held_bytes = (
            case.supervised * case.hidden * (case.element_bytes + 4)
            + case.tokens * case.hidden * case.element_bytes
            + case.supervised * columns * case.element_bytes
        )
        return Cost((select, *first, *products, scatter), held_bytes)
