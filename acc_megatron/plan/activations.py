"""What a layer keeps from its forward to its backward pass: one table of tensors, with the recompute that drops each.

Read from megatron-core 0.19.2 and torch 2.13 with `saved_tensors_hooks` on CPU; for GPU from the source of Transformer
Engine 2 (fused normalisation, attention, permutation, grouped GEMM), which no GPU has confirmed. Each storage counts
once: a view of a tensor that another operation keeps is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from acc_megatron.config import MemoryConfig
from acc_megatron.plan.shapes import Shapes

FLOAT, INDEX = 4, 8


@dataclass(frozen=True, slots=True)
class Kept:
    """One tensor of a layer; `dropped_by` is the recompute module that does without it, "" when none does."""

    name: str
    num_bytes: float
    part: str  # attention or experts
    dropped_by: str = ""


def layer_tensors(s: Shapes, documents_tokens: Sequence[int], *, aux_loss: bool) -> list[Kept]:
    """Everything a layer keeps for its backward pass without recompute."""
    return [*_attention(s, documents_tokens), *_router(s, aux_loss), *_experts(s)]


def _norm(s: Shapes, name: str, part: str) -> list[Kept]:
    """A norm of the residual stream: its input and output."""
    statistics = s.split_tokens * FLOAT
    if s.on_gpu:
        kept = [Kept(f"{name}: input", s.stream_bytes, part), Kept(f"{name}: statistics", statistics, part)]
    else:
        # torch computes in float32 and keeps input and normalised input so
        width = s.split_tokens * s.hidden * FLOAT
        kept = [
            Kept(f"{name}: input", s.stream_bytes, part),
            Kept(f"{name}: float32 copies", 2 * width + statistics - s.stream_bytes, part, "layernorm"),
        ]
    return [*kept, Kept(f"{name}: output", s.stream_bytes, part, "layernorm")]


def _attention(s: Shapes, documents_tokens: Sequence[int]) -> list[Kept]:
    def kept(name: str, num_bytes: float, dropped_by: str = "") -> Kept:
        return Kept(name, num_bytes, "attention", dropped_by)

    element, tokens = s.element_bytes, s.tokens
    tensors = [
        *_norm(s, "input norm", "attention"),
        kept("queries, keys, values", tokens * (s.queries + 2 * s.keys) * element),
        kept("rotated queries and keys", tokens * (s.queries + s.keys) * element),
        kept("log-sum-exp", tokens * s.heads * FLOAT, "core_attn"),
        kept("attention output", tokens * s.queries * element),
    ]
    if s.on_gpu:
        return [*tensors, kept("head norms: inputs", tokens * (s.queries + s.keys) * element)]
    # float32 keeps raw keys as a view of the projection; bfloat16 keeps a float32 copy
    raw_keys = s.keys * FLOAT if element < FLOAT else 0
    whole_keys = (s.row_tokens if s.context > 1 else 0) * 2 * s.keys * element
    return [
        *tensors,
        kept("head norms: float32 copies", tokens * ((2 * s.queries + s.keys) * FLOAT + raw_keys)),
        kept("head norms: statistics", tokens * (s.heads + s.key_heads) * FLOAT),
        kept("rotary cosines and sines", 4 * tokens * s.head_dim * element),
        kept("attention output, per document", tokens * s.queries * element, "core_attn"),
        # of rotated keys and values only one is kept: the gathered ones
        kept("gathered keys and values", max(0, whole_keys - tokens * s.keys * element), "core_attn"),
        kept("masks of document chunks", mask_elements(documents_tokens, s.context) * element, "core_attn"),
    ]


def mask_elements(documents_tokens: Sequence[int], context: int) -> float:
    """Entries of the masks of context rank 0: its last chunk of each document sees the whole of it."""
    if context == 1:
        return 0
    return sum((length // (2 * context)) * length for length in documents_tokens)


def _router(s: Shapes, aux_loss: bool) -> list[Kept]:
    choices = s.split_tokens * s.experts_per_token
    scores = s.split_tokens * s.experts
    # a permutation is an index of every choice; TE's fused one keeps a row of 2 x experts + 1 numbers a token
    permutation = s.split_tokens * (2 * s.experts + 1) * 4 if s.on_gpu else scores * INDEX + choices * INDEX
    tensors = [
        *_norm(s, "expert norm", "experts"),
        Kept("router: choices", choices * (INDEX + FLOAT), "experts", "moe"),
        Kept("permutation", permutation, "experts", "moe"),
    ]
    if aux_loss:
        tensors.append(Kept("router: balancing loss", scores * FLOAT + choices * INDEX, "experts", "moe"))
    return tensors


def _experts(s: Shapes) -> list[Kept]:
    one = s.expert_tokens * s.expert_ffn * s.element_bytes
    return [
        Kept("experts: input", s.expert_tokens * s.hidden * s.element_bytes, "experts", "moe"),
        Kept("experts: gate and up", 2 * one, "experts", "moe"),
        # SiLU of the gate, up, their product, and it times the router's probability
        Kept("experts: activation", 4 * one + s.expert_tokens * FLOAT, "experts", "moe_act"),
    ]


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """Bytes of one layer: kept until its backward pass, and made again for it alone."""

    kept_bytes: float
    remade_bytes: float


def layer_memory(tensors: Sequence[Kept], s: Shapes, memory: MemoryConfig) -> LayerMemory:
    """What recompute leaves of the table."""
    everything = sum(tensor.num_bytes for tensor in tensors)
    if memory.recompute == "full":
        # the dispatcher holds on to the graph that was made again: the layer's input, and the gradient of it
        return LayerMemory(2 * s.stream_bytes, everything - s.stream_bytes)
    dropped = set(memory.recompute_modules) if memory.recompute == "selective" else set()
    if "moe" in dropped:
        dropped.add("moe_act")
    remade = sum(tensor.num_bytes for tensor in tensors if tensor.dropped_by in dropped)
    return LayerMemory(everything - remade, remade)


def working_bytes(s: Shapes) -> float:
    """Beside what is kept, while a layer's experts run: their outputs, these joined, and the stream's gradient."""
    return 2 * s.expert_tokens * s.hidden * s.element_bytes + s.stream_bytes
