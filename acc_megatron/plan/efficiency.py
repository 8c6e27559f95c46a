"""The shares of a machine's peak figures, and of its memory, that a plan assumes this stack to reach."""

from dataclasses import dataclass

# the allocator's fragments and what nobody counted: a plan that fills more is not called fitting
FIT_SHARE = 0.92


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the peak figures that are assumed, for every machine; the plan's README says how they were set."""

    dense_gemm: float = 0.65
    expert_gemm: float = 0.5  # grouped, with the recipe's narrow experts
    attention_forward: float = 0.6
    attention_backward: float = 0.5  # of 2.5 times the forward's arithmetic
    memory: float = 0.8
    link: float = 0.75
    host_seconds_per_layer: float = 1.5e-3  # of a forward pass: what launching its kernels takes


EFFICIENCY = Efficiency()
