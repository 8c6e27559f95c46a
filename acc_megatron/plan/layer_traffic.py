"""Bytes that one layer's forward pass reads and writes outside matrix products and attention."""

from dataclasses import dataclass

from acc_megatron.plan.rank_sizes import RankSizes


@dataclass(frozen=True, slots=True)
class Accesses:
    """Accesses per element of each kind of tensor: a read and a write count as two."""

    stream: float  # residual stream
    heads: float  # queries and keys
    permuted: float  # tokens of the experts, in the hidden size
    expert: float  # gate, up and their product, in the experts' width
    dense: float  # the same in a dense MLP, without a router's probability


# 4 for two norms and 6 for two additions; split, norm and rotary embedding; permuted, sent, sorted, and back; SiLU,
# product and probability in one kernel, which reads gate and up and writes the product
GPU = Accesses(stream=10, heads=6, permuted=8, expert=3, dense=3)
# a third of what a dispatch mode of torch 2.13 counted in a forward and a backward pass of megatron-core 0.19.2's plain
# layers, all in float32, by the slope over tokens, hidden size, heads, experts per token and their width
CPU = Accesses(stream=28, heads=24, permuted=2.7, expert=8, dense=8)


def plain_bytes(s: RankSizes) -> float:
    """Bytes of norms, additions, rotary embedding and activation functions."""
    count = GPU if s.on_gpu else CPU
    heads = s.tokens * (s.queries + s.keys) * s.element_bytes
    return count.stream * s.stream_bytes + count.heads * heads + activation_bytes(s) + dense_activation_bytes(s)


def projection_bytes(s: RankSizes) -> float:
    """Bytes of the first norm and of the work on queries and keys before attention: a part of `plain_bytes`."""
    count = GPU if s.on_gpu else CPU
    heads = s.tokens * (s.queries + s.keys) * s.element_bytes
    return count.stream / 5 * s.stream_bytes + count.heads * heads


def activation_bytes(s: RankSizes) -> float:
    """Bytes of the experts' activation function, which selective recompute can repeat."""
    return (GPU if s.on_gpu else CPU).expert * s.expert_tokens * s.expert_ffn * s.element_bytes


def dense_activation_bytes(s: RankSizes) -> float:
    """Bytes of the activation function of a dense MLP, which has no router probability."""
    return (GPU if s.on_gpu else CPU).dense * s.tokens * s.ffn * s.element_bytes


def permuted_bytes(s: RankSizes) -> float:
    """Bytes of the tokens on their way to the experts and back, without the all-to-all."""
    return (GPU if s.on_gpu else CPU).permuted * s.expert_tokens * s.hidden * s.element_bytes


def cast_bytes(s: RankSizes) -> float:
    """Bytes of the FP8 casts: each linear layer's input is read in bfloat16, written in FP8 and in transposed FP8."""
    dense = s.tokens * (s.hidden + s.ffn) if s.ffn else 0
    return 4 * (s.tokens * (s.hidden + s.queries) + dense + s.expert_tokens * (s.hidden + s.expert_ffn))
