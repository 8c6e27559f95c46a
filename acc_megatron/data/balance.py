"""What a row costs, and how well the ranks that wait for one another are given like work.

Attention is causal inside each document, so a row of one long document costs more than a full row of short ones.
With experts spread over data-parallel ranks every layer's all-to-all locks these together: balance per microbatch
counts, not per step.
"""

from collections.abc import Sequence

import numpy as np

from acc_megatron.config import ModelConfig
from acc_megatron.flops import forward_flops


def row_cost_flops(lengths_tokens: Sequence[int], model: ModelConfig) -> float:
    """Forward FLOPs of a row of documents; the head is left out, since it runs on supervised rows alone."""
    squared = sum(length * length for length in lengths_tokens)
    return forward_flops(model, tokens=sum(lengths_tokens), squared_tokens=squared)


def like_with_like(batch: Sequence[int], costs: Sequence[float]) -> list[int]:
    """A global batch with its costliest rows first, so that consecutive rows, which share a microbatch, are alike.

    The same rows: the mathematics of the step is unchanged. Ties keep their order.
    """
    return [batch[i] for i in sorted(range(len(batch)), key=lambda i: -costs[i])]


def efficiency(costs: Sequence[float] | np.ndarray, num_ranks: int) -> float:
    """Mean work over work waited for, when each run of `num_ranks` rows is one microbatch of locked ranks."""
    microbatches = np.asarray(costs, np.float64).reshape(-1, num_ranks)
    return float(microbatches.mean(axis=1).sum() / microbatches.max(axis=1).sum())


def least_wait(documents: Sequence[tuple[int, float]], row_tokens: int, num_rows: int, num_ranks: int) -> float:
    """A lower bound of the summed maxima over microbatches, for any way to pack a global batch's documents.

    `documents` are (tokens, work) of the batch; work per token grows with length. Order microbatches by maximum.
    The first holds the longest document. If document k * ranks + 1 by length is over half a row, so are all before it
    and each has a row of its own: the k-th next maximum is at least its work. And the first j microbatches hold at
    most as much work as the longest documents that fill their rows, one of them cut: the ranks wait for the rest too.
    """
    longest = sorted(documents, reverse=True)
    num_microbatches = num_rows // num_ranks
    total = sum(work for _, work in longest)
    alone = [
        longest[k * num_ranks][1]
        if k * num_ranks < len(longest) and (k == 0 or longest[k * num_ranks][0] > row_tokens / 2)
        else 0.0
        for k in range(num_microbatches)
    ]
    bound = 0.0
    for first in range(num_microbatches):
        held = _most_work(longest, first * num_ranks * row_tokens)
        bound = max(bound, sum(alone[:first]) + max((total - held) / num_ranks, sum(alone[first:])))
    return bound


def _most_work(longest: Sequence[tuple[int, float]], room_tokens: int) -> float:
    work = 0.0
    for tokens, document_work in longest:
        if tokens >= room_tokens:
            return work + document_work * room_tokens / tokens
        work += document_work
        room_tokens -= tokens
    return work
