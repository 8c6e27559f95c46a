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
