"""Arithmetic, memory traffic and peak memory of the loss as formulas; tests compare them with counted operations.

They describe the forward and backward pass of one rank, phase by phase. A phase takes at least the longer of its
arithmetic and its traffic. Only matrix products are counted as arithmetic: one pass over the weight costs
2 x rows x vocabulary x hidden. Traffic counts each operand of a phase once. Peak memory is what is allocated in
addition to hidden states, weight and a float32 `main_grad`: logits and their gradients, the gradients of hidden states
and weight, and compact rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

MAIN_GRAD_BYTES = 4  # float32


class Case(NamedTuple):
    """The problem size on one rank.

    `vocab` is the size of the shard, one of `num_shards`. `supervised` counts the rows of all ranks under sequence
    parallelism.
    """

    tokens: int
    supervised: int
    vocab: int
    hidden: int
    element_bytes: int = 2
    num_shards: int = 1


class Ceiling(NamedTuple):
    """What a device reaches in a large matrix product and in a large copy."""

    flops_per_second: float
    bytes_per_second: float

    def rounded(self) -> dict[str, float]:
        """As the columns of a row."""
        return {
            "ceiling_tflop_per_second": round(self.flops_per_second / 1e12, 3),
            "ceiling_gb_per_second": round(self.bytes_per_second / 1e9, 1),
        }


# H100 SXM, dense bfloat16 and HBM3, from its data sheet
H100 = Ceiling(989e12, 3.35e12)


class Phase(NamedTuple):
    """Operations that read their operands from memory once: `flops` of matrix products, `bytes` read and written."""

    name: str
    flops: int
    bytes: int


class Cost(NamedTuple):
    """The phases in order, and `peak_bytes`."""

    phases: tuple[Phase, ...]
    peak_bytes: int

    @property
    def flops(self) -> int:
        """Arithmetic of all phases."""
        return sum(phase.flops for phase in self.phases)

    @property
    def bytes(self) -> int:
        """Traffic of all phases."""
        return sum(phase.bytes for phase in self.phases)

    def seconds(self, ceiling: Ceiling) -> float:
        """Lower bound: the sum over phases of the longer of arithmetic and traffic. Computed, not measured."""
        return sum(
            max(phase.flops / ceiling.flops_per_second, phase.bytes / ceiling.bytes_per_second) for phase in self.phases
        )


def floor(case: Case) -> Cost:
    """What no implementation with an exact gradient can avoid: three products of the supervised rows, no logits.

    The weight is read by two of them, `main_grad` is read and written, and the gradient of hidden states is dense.
    """
    product = 2 * case.supervised * case.vocab * case.hidden
    rows_bytes = case.supervised * case.hidden * case.element_bytes
    weight_bytes = case.vocab * case.hidden * case.element_bytes
    dense_bytes = case.tokens * case.hidden * case.element_bytes
    return Cost(
        (
            Phase("logits", product, rows_bytes + weight_bytes),
            Phase("gradient of hidden states", product, weight_bytes + dense_bytes),
            Phase("gradient of weight", product, rows_bytes + main_grad_bytes(case)),
        ),
        dense_bytes,
    )


def main_grad_bytes(case: Case) -> int:
    """Traffic of adding to `main_grad`: it is read and written."""
    return 2 * case.vocab * case.hidden * MAIN_GRAD_BYTES


def row_phases(case: Case, *, gradient_bytes: int) -> tuple[Phase, Phase]:
    """Selecting the supervised rows, and writing their gradient (`gradient_bytes` an element) into a dense one."""
    rows = case.supervised * case.hidden
    return (
        Phase("select rows", 0, 2 * rows * case.element_bytes),
        Phase("dense gradient", 0, rows * gradient_bytes + case.tokens * case.hidden * case.element_bytes),
    )


def cost_of_full_logits(
    case: Case, *, bytes_held_per_logit: float, pointwise_bytes_per_logit: float, num_chunks: int = 1
) -> Cost:
    """The cost if every row is multiplied with the full weight, in `num_chunks` chunks of rows.

    `pointwise_bytes_per_logit` is the traffic between the products, which write a logit once and read its gradient
    twice. The gradient of the weight has the dtype of the weight and is then added to `main_grad`.
    """
    num_logits = case.tokens * case.vocab
    product = 2 * num_logits * case.hidden
    logit_bytes, weight_bytes, rows_bytes = (
        count * case.element_bytes for count in (num_logits, case.vocab * case.hidden, case.tokens * case.hidden)
    )
    # the first chunk writes the gradient of the weight, the others add to it
    num_dweight_accesses = 2 * num_chunks - 1
    phases = (
        Phase("logits", product, rows_bytes + num_chunks * weight_bytes + logit_bytes),
        Phase("pointwise", 0, int(num_logits * pointwise_bytes_per_logit)),
        Phase("gradient of hidden states", product, logit_bytes + num_chunks * weight_bytes + rows_bytes),
        Phase("gradient of weight", product, logit_bytes + rows_bytes + num_dweight_accesses * weight_bytes),
        Phase("add to main_grad", 0, weight_bytes + main_grad_bytes(case)),
    )
    return Cost(phases, int(num_logits * bytes_held_per_logit) + rows_bytes + weight_bytes)


def shard_cases(case: Case, num_shards: tuple[int, ...]) -> Iterator[Case]:
    """The case of one rank for each number of vocabulary shards; `case` has the full vocabulary."""
    return (case._replace(vocab=case.vocab // count, num_shards=count) for count in num_shards)
