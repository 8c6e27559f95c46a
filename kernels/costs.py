"""Arithmetic and memory that each implementation of the loss needs, as formulas; tests hold them to counted operations.

Forward and backward of one rank. Matrix products only: a pass over the weight costs 2 x rows x vocabulary x hidden.
Peak memory is what exists beside hidden states, weight and a float32 `main_grad`: logits and their gradients, the
gradients of hidden states and weight, compact rows. Peers were read in source: Liger 0.8.5, Cut Cross-Entropy d42911f,
Megatron-core 0.19.2, Transformer Engine 2.20.2.
"""

from collections.abc import Callable
from typing import NamedTuple

from acc_megatron.kernels.masked_linear_cross_entropy.head import WINDOW_COLUMNS

LIGER_CHUNK_ROWS = 2048
# H100 SXM, dense bfloat16 and HBM3, from its data sheet
H100_FLOPS, H100_BYTES_PER_SECOND = 989e12, 3.35e12


class Case(NamedTuple):
    """One rank's problem; `vocab` is its shard. `supervised` counts rows of all ranks under sequence parallelism."""

    tokens: int
    supervised: int
    vocab: int
    hidden: int
    element_bytes: int = 2


class Cost(NamedTuple):
    """`flops` of matrix products, forward and backward; `peak_bytes`; `logit_bytes`: reads and writes of logits."""

    flops: int
    peak_bytes: int
    logit_bytes: int


def _all_rows(case: Case, logit_bytes_held: float, logit_bytes_moved: float, passes: int = 3) -> Cost:
    """Every row against every word: `held` and `moved` are bytes a logit."""
    logits = case.tokens * case.vocab
    gradients = (case.tokens + case.vocab) * case.hidden * case.element_bytes
    return Cost(
        2 * passes * logits * case.hidden, int(logits * logit_bytes_held) + gradients, int(logits * logit_bytes_moved)
    )


def _plain(case: Case) -> Cost:
    # log-softmax, its gradient and that of the loss in float32; each read or written once a step of autograd
    return _all_rows(case, 12, 2 * case.element_bytes + 28)


def _megatron(case: Case) -> Cost:
    return _all_rows(case, case.element_bytes + 4, 46)


def _transformer_engine(case: Case) -> Cost:
    return _all_rows(case, 2 * case.element_bytes, 7 * case.element_bytes)


def _chunked(case: Case) -> Cost:
    """Liger's algorithm: chunks of rows, gradients made in forward; every row is multiplied."""
    cost = _all_rows(case, 0, 10 * case.element_bytes)
    chunk = min(case.tokens, LIGER_CHUNK_ROWS) * case.vocab * case.element_bytes
    return cost._replace(peak_bytes=cost.peak_bytes + chunk)


def _cut(case: Case) -> Cost:
    """Cut Cross-Entropy: supervised rows, logits only in registers, dense gradients of both operands."""
    gradients = (case.tokens + case.vocab) * case.hidden * case.element_bytes
    return Cost(8 * case.supervised * case.vocab * case.hidden, gradients, 0)


def _compact(case: Case) -> Cost:
    """Compaction, then plain: the baseline that has most of the gain."""
    few = _plain(case._replace(tokens=case.supervised))
    rows = 2 * case.supervised * case.hidden * case.element_bytes
    dense = case.tokens * case.hidden * case.element_bytes
    return few._replace(peak_bytes=few.peak_bytes + rows + dense - rows // 2)


def _ours(case: Case, passes: int, columns: int, moves: int) -> Cost:
    rows_bytes = case.supervised * case.hidden * (case.element_bytes + 4)
    dense = case.tokens * case.hidden * case.element_bytes
    logits = case.supervised * columns * case.element_bytes
    moved = moves * case.supervised * case.vocab * case.element_bytes
    return Cost(2 * passes * case.supervised * case.vocab * case.hidden, rows_bytes + dense + logits, moved)


def _keep(case: Case) -> Cost:
    # written by the product, read for statistics, read and written as gradient, read by two products
    return _ours(case, 3, case.vocab, 6)


def _recompute(case: Case) -> Cost:
    # gradients alone reach memory: written once, read by two products
    return _ours(case, 4, min(WINDOW_COLUMNS, case.vocab), 3)


COSTS: dict[str, Callable[[Case], Cost]] = {
    "plain": _plain,
    "Megatron-core": _megatron,
    "Transformer Engine": _transformer_engine,
    "chunked (Liger)": _chunked,
    "Cut Cross-Entropy": _cut,
    "compact + plain": _compact,
    "ours, keep": _keep,
    "ours, recompute": _recompute,
}
# what shards the vocabulary; the others need every word on each rank
SHARDED = {"plain", "Megatron-core", "Transformer Engine", "ours, keep", "ours, recompute", "Cut Cross-Entropy"}


def roofline_seconds(cost: Cost) -> float:
    """The least time on an H100 SXM: the longer of arithmetic and of moving the logits. No measurement."""
    return max(cost.flops / H100_FLOPS, cost.logit_bytes / H100_BYTES_PER_SECOND)


def table(
    tokens: int = 131_072,
    share: float = 0.04,
    vocab: int = 151_936,
    hidden: int = 2048,
    shards: tuple[int, ...] = (1, 2, 4, 8),
) -> str:
    """Markdown: TFLOP, peak GiB and roofline ms of every implementation on 1 to 8 vocabulary shards."""
    supervised = round(tokens * share)
    heads = " / ".join(str(count) for count in shards)
    lines = [
        f"| implementation | TFLOP, TP {heads} | peak GiB, TP {heads} | H100 roofline ms, TP {heads} |",
        "|---|---|---|---|",
    ]
    for name, cost_of in COSTS.items():
        counts = [count for count in shards if count == 1 or name in SHARDED]
        costs = [cost_of(Case(tokens, supervised, vocab // count, hidden)) for count in counts]
        cells = (
            " / ".join(f"{cost.flops / 1e12:.1f}" for cost in costs),
            " / ".join(f"{cost.peak_bytes / 2**30:.2f}" for cost in costs),
            " / ".join(f"{1e3 * roofline_seconds(cost):.1f}" for cost in costs),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
