"""What a row costs, and how well the ranks that wait for one another are given like work.

Attention is causal inside each document, so a row of one long document costs more than a full row of short ones.
With experts spread over data-parallel ranks every layer's all-to-all locks these together: balance per microbatch
counts, not per step.
"""

from collections.abc import Sequence

import numpy as np

from acc_megatron.config import ModelConfig


def row_cost_flops(lengths_tokens: Sequence[int], model: ModelConfig) -> float:
    """Forward floating-point operations of a row of documents: a linear term and the sum of squared lengths.

    2 per weight and token for the active weights of every layer, and 4 x heads x head_dim x l^2 / 2 for causal
    attention in each layer; the head is left out, since it runs on supervised rows alone.
    """
    lengths = np.asarray(lengths_tokens, np.float64)
    queries = model.num_attention_heads * model.head_dim
    keys = model.num_key_value_heads * model.head_dim
    attention_weights = model.hidden_size * (2 * queries + 2 * keys)
    expert_weights = 3 * model.hidden_size * model.moe_intermediate_size * model.num_experts_per_tok
    router_weights = model.hidden_size * model.num_experts
    per_token = 2 * (attention_weights + expert_weights + router_weights)
    return model.num_hidden_layers * (per_token * lengths.sum() + 2 * queries * np.square(lengths).sum())


def like_with_like(batch: Sequence[int], costs: Sequence[float]) -> list[int]:
    """A global batch with its costliest rows first, so that consecutive rows, which share a microbatch, are alike.

    The same rows: the mathematics of the step is unchanged. Ties keep their order.
    """
    return [batch[i] for i in sorted(range(len(batch)), key=lambda i: -costs[i])]


def efficiency(costs: Sequence[float] | np.ndarray, num_ranks: int) -> float:
    """Mean work over work waited for, when each run of `num_ranks` rows is one microbatch of locked ranks."""
    microbatches = np.asarray(costs, np.float64).reshape(-1, num_ranks)
    return float(microbatches.mean(axis=1).sum() / microbatches.max(axis=1).sum())
