"""The tensors that a layer saves for its backward pass, each with the recompute module that drops it.

The CPU figures were observed in megatron-core 0.19.2 and torch 2.13 with `saved_tensors_hooks`. The GPU figures were
read from the source of Transformer Engine 2 (fused normalisation, attention, permutation, grouped GEMM) and have not
been confirmed on a GPU. Each storage counts once: a view of a tensor that another operation saves is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from acc_megatron.config import MemoryConfig
from acc_megatron.plan.rank_sizes import RankSizes

FLOAT, INDEX = 4, 8


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """One tensor of a layer; `dropped_by` is the recompute module that does not save it, or "".

    `offloaded_by` is the module of `memory.offload_modules` that moves it to host memory, or "". `copied_by` is one
    that makes one more copy of it there without freeing it on the device, or "".
    """

    name: str
    num_bytes: float
    part: str  # attention, experts or mlp
    dropped_by: str = ""
    offloaded_by: str = ""
    copied_by: str = ""


def layer_tensors(s: RankSizes, documents_tokens: Sequence[int], *, aux_loss: bool) -> list[SavedTensor]:
    """All tensors that a layer saves for its backward pass without recompute."""
    mlp = _dense(s) if s.ffn else [*_router(s, aux_loss), *_experts(s)]
    return [*_attention(s, documents_tokens), *mlp]


def _norm(
    s: RankSizes, name: str, part: str, *, dropped_on_gpu_by: str, offloaded_by: str = "", moves_output: bool = False
) -> list[SavedTensor]:
    """A norm of the residual stream; "layernorm" skips a norm that Transformer Engine fuses into a matrix."""
    statistics = s.split_tokens * FLOAT
    if s.on_gpu:
        saved = [
            SavedTensor(f"{name}: input", s.stream_bytes, part, "", offloaded_by),
            SavedTensor(f"{name}: statistics", statistics, part),
        ]
    else:
        # torch computes in float32, and saves the input and the normalised input in float32
        width = s.split_tokens * s.hidden * FLOAT
        saved = [
            SavedTensor(f"{name}: input", s.stream_bytes, part),
            SavedTensor(f"{name}: float32 copies", 2 * width + statistics - s.stream_bytes, part, "layernorm"),
        ]
    dropped_by = dropped_on_gpu_by if s.on_gpu else "layernorm"
    moved_by = offloaded_by if moves_output else ""
    return [*saved, SavedTensor(f"{name}: output", s.stream_bytes, part, dropped_by, moved_by)]


def _attention(s: RankSizes, documents_tokens: Sequence[int]) -> list[SavedTensor]:
    def saved(
        name: str, num_bytes: float, dropped_by: str = "", offloaded_by: str = "", copied_by: str = ""
    ) -> SavedTensor:
        return SavedTensor(name, num_bytes, "attention", dropped_by, offloaded_by, copied_by)

    element, tokens = s.element_bytes, s.tokens
    tensors = [
        *_norm(s, "input norm", "attention", dropped_on_gpu_by="", offloaded_by="qkv_linear", moves_output=True),
        # one storage; fused attention saves its values
        saved("queries, keys, values: queries and keys", tokens * (s.queries + s.keys) * element),
        saved("queries, keys, values: values", tokens * s.keys * element, copied_by="core_attn"),
        saved("rotated queries and keys", tokens * (s.queries + s.keys) * element, offloaded_by="core_attn"),
        saved("log-sum-exp", tokens * s.heads * FLOAT, "core_attn", "core_attn"),
        # saved by fused attention and by the projection after it
        saved("attention output", tokens * s.queries * element, offloaded_by="attn_proj", copied_by="core_attn"),
    ]
    if s.on_gpu:
        inputs = tokens * (s.queries + s.keys) * element
        return [*tensors, saved("head norms: inputs", inputs, offloaded_by="qkv_linear")]
    # in float32 the raw keys are a view of the projection; in bfloat16 they are a float32 copy
    raw_keys = s.keys * FLOAT if element < FLOAT else 0
    gathered_keys = (s.row_tokens if s.context > 1 else 0) * 2 * s.keys * element
    return [
        *tensors,
        saved("head norms: float32 copies", tokens * ((2 * s.queries + s.keys) * FLOAT + raw_keys)),
        saved("head norms: statistics", tokens * (s.heads + s.key_heads) * FLOAT),
        saved("rotary cosines and sines", 4 * tokens * s.head_dim * element),
        saved("attention output, per document", tokens * s.queries * element, "core_attn"),
        # the gathered keys and values replace the local ones
        saved("gathered keys and values", max(0, gathered_keys - tokens * s.keys * element), "core_attn"),
        saved("masks of document chunks", mask_elements(documents_tokens, s.context) * element, "core_attn"),
    ]


def mask_elements(documents_tokens: Sequence[int], context: int) -> float:
    """Entries of the masks of context rank 0, whose last chunk of each document attends to the whole document."""
    if context == 1:
        return 0
    return sum((length // (2 * context)) * length for length in documents_tokens)


def _router(s: RankSizes, aux_loss: bool) -> list[SavedTensor]:
    choices = s.split_tokens * s.experts_per_token
    scores = s.split_tokens * s.experts
    # the permutation saves an index for every choice; TE's fused one 2 x experts + 1 numbers for every token
    permutation = s.split_tokens * (2 * s.experts + 1) * 4 if s.on_gpu else scores * INDEX + choices * INDEX
    # TE's fused router saves a map of bytes and float32 probabilities
    chosen = scores * (1 + FLOAT) if s.on_gpu else choices * (INDEX + FLOAT)
    balancing = scores * FLOAT + (0 if s.on_gpu else choices * INDEX)
    tensors = [
        *_norm(s, "expert norm", "experts", dropped_on_gpu_by="layernorm", offloaded_by="mlp_norm"),
        SavedTensor("router: choices", chosen, "experts", "moe"),
        SavedTensor("permutation", permutation, "experts", "moe"),
    ]
    if aux_loss:
        tensors.append(SavedTensor("router: balancing loss", balancing, "experts", "moe"))
    return tensors


def _experts(s: RankSizes) -> list[SavedTensor]:
    one = s.expert_tokens * s.expert_ffn * s.element_bytes
    # on GPU Megatron's fused activation saves its input and probability; its output is the next product's input. On CPU
    # SiLU of the gate, up, their product, and the product times the router's probability are saved
    activation = (1 if s.on_gpu else 4) * one + s.expert_tokens * FLOAT
    return [
        SavedTensor("experts: input", s.expert_tokens * s.hidden * s.element_bytes, "experts", "moe", "expert_fc1"),
        SavedTensor("experts: gate and up", 2 * one, "experts", "moe", "moe_act"),
        # the product after it runs outside of what Megatron offloads, so its input stays
        SavedTensor("experts: activation", activation, "experts", "moe_act"),
    ]


def _dense(s: RankSizes) -> list[SavedTensor]:
    one = s.tokens * s.ffn * s.element_bytes
    return [
        *_norm(s, "MLP norm", "mlp", dropped_on_gpu_by="mlp"),
        SavedTensor("MLP: gate and up", 2 * one, "mlp", "mlp"),
        # on CPU SiLU of the gate, up, and their product; on GPU the product only
        SavedTensor("MLP: activation", (1 if s.on_gpu else 3) * one, "mlp", "mlp"),
    ]


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """Bytes of one layer: saved on the device until its backward pass, recomputed for it, and moved to the host.

    `copied_bytes` are in host memory too, but also on the device or, as another copy, in host memory.
    """

    saved_bytes: float
    recomputed_bytes: float
    offloaded_bytes: float = 0.0
    copied_bytes: float = 0.0

    @property
    def host_bytes(self) -> float:
        """Bytes in host memory."""
        return self.offloaded_bytes + self.copied_bytes


def layer_memory(tensors: Sequence[SavedTensor], s: RankSizes, memory: MemoryConfig) -> LayerMemory:
    """Divide the tensors of a layer into saved and recomputed ones."""
    everything = sum(tensor.num_bytes for tensor in tensors)
    if memory.recompute == "full":
        # the dispatcher keeps a reference to the recomputed graph: the layer's input and the input's gradient
        return LayerMemory(2 * s.stream_bytes, everything - s.stream_bytes)
    dropped = set(memory.recompute_modules) if memory.recompute == "selective" else set()
    if "moe" in dropped:
        dropped.add("moe_act")
    recomputed = sum(tensor.num_bytes for tensor in tensors if tensor.dropped_by in dropped)
    moved = set(memory.offload_modules)
    offloaded = sum(
        tensor.num_bytes for tensor in tensors if tensor.offloaded_by in moved and tensor.dropped_by not in dropped
    )
    copied = sum(tensor.num_bytes for tensor in tensors if tensor.copied_by in moved)
    return LayerMemory(everything - recomputed - offloaded, recomputed, offloaded, copied)


def working_bytes(s: RankSizes) -> float:
    """Temporaries while a layer's experts run: their outputs, these concatenated, and the stream's gradient."""
    return 2 * s.expert_tokens * s.hidden * s.element_bytes + s.stream_bytes
