"""The cost of a packed row, and how evenly work is spread over ranks that wait for each other.

Attention is causal within each document, so a packed row with one long document costs more than one with many short
documents. Where experts are spread over data-parallel ranks, the all-to-all of every layer synchronises these ranks:
what matters is the balance of each microbatch, not of the step.
"""

from collections.abc import Sequence

import numpy as np

from acc_megatron.config import ModelConfig
from acc_megatron.model.flops import forward_flops


def row_cost_flops(lengths_tokens: Sequence[int], model: ModelConfig) -> float:
    """Forward FLOPs of a packed row by its document lengths, without the head, which sees supervised tokens only."""
    squared = sum(length * length for length in lengths_tokens)
    return forward_flops(model, tokens=sum(lengths_tokens), squared_tokens=squared)


def costliest_first(batch: Sequence[int], costs: Sequence[float]) -> list[int]:
    """Sort a global batch by descending cost, so that the consecutive rows of a microbatch cost about the same.

    The batch contains the same rows, so the result of the step does not change. Rows of equal cost keep their order.
    """
    return [batch[i] for i in sorted(range(len(batch)), key=lambda i: -costs[i])]


def efficiency(costs: Sequence[float] | np.ndarray, num_ranks: int) -> float:
    """Mean work divided by the slowest rank's work, summed over microbatches of `num_ranks` consecutive rows."""
    microbatches = np.asarray(costs, np.float64).reshape(-1, num_ranks)
    return float(microbatches.mean(axis=1).sum() / microbatches.max(axis=1).sum())


def wait_lower_bound(documents: Sequence[tuple[int, float]], row_tokens: int, num_rows: int, num_ranks: int) -> float:
    """A lower bound of the summed maxima over microbatches, for every way to pack a global batch's documents.

    `documents` are (tokens, work) pairs of the batch; work per token must grow with length. The proof sorts
    microbatches by their maximum, largest first, and documents by length, longest first:

    - The first microbatch contains the longest document. If document k * num_ranks + 1 is longer than half a row, it
      and all documents before it are in different rows, so the k-th next maximum is at least its work.
    - The first j microbatches contain at most as much work as the longest documents that fill their rows, where the
      last document may be cut. The ranks must also do the remaining work.
    """
    longest = sorted(documents, reverse=True)
    num_microbatches = num_rows // num_ranks
    total = sum(work for _, work in longest)
    largest_work = [
        longest[k * num_ranks][1]
        if k * num_ranks < len(longest) and (k == 0 or longest[k * num_ranks][0] > row_tokens / 2)
        else 0.0
        for k in range(num_microbatches)
    ]
    bound = 0.0
    for first in range(num_microbatches):
        contained = _most_work(longest, first * num_ranks * row_tokens)
        remaining = max((total - contained) / num_ranks, sum(largest_work[first:]))
        bound = max(bound, sum(largest_work[:first]) + remaining)
    return bound


def _most_work(longest: Sequence[tuple[int, float]], room_tokens: int) -> float:
    """The work of the longest documents that fill `room_tokens`; the last one counts in proportion."""
    work = 0.0
    for tokens, document_work in longest:
        if tokens >= room_tokens:
            return work + document_work * room_tokens / tokens
        work += document_work
        room_tokens -= tokens
    return work
