"""How each Megatron parameter is made of Hugging Face tensors, and back; one entry a parameter.

Names on the Hugging Face side are those on disk (an expert a tensor), which transformers 4 and 5, vLLM and SGLang
all read. Shape suffixes: G key-value heads, Q query heads of a group, D head dim, F expert hidden, H hidden.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from acc_megatron.config import ModelConfig
from acc_megatron.layout import Layout

# what a parameter is cut by: nothing, or one axis along a dim ("gate_up" cuts both halves of dim 0)
Shard = Literal["whole", "rows", "columns", "gate_up", "expert_columns"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One Megatron parameter: its Hugging Face tensors, how they join, how they part, how it is sharded."""

    hf_names: tuple[str, ...]
    shard: Shard = "whole"
    join: Callable[..., torch.Tensor] = lambda tensor: tensor
    part: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = lambda tensor: (tensor,)


def entry_for(name: str, layer_offset: int, expert_offset: int, model: ModelConfig) -> Entry:
    """The entry of a parameter of this rank by its Megatron name.

    `layer_offset` is the global number of the rank's first layer, `expert_offset` that of its first expert.
    """
    top = {
        "embedding.word_embeddings.weight": Entry(("model.embed_tokens.weight",), "rows"),
        "output_layer.weight": Entry(("lm_head.weight",), "rows"),
        "decoder.final_layernorm.weight": Entry(("model.norm.weight",)),
    }
    if name in top:
        return top[name]
    _, _, local, rest = name.split(".", 3)
    prefix = f"model.layers.{int(local) + layer_offset}."
    if rest == "self_attention.linear_qkv.weight":
        return _qkv(prefix, model)
    layer = {
        "self_attention.linear_proj.weight": ("self_attn.o_proj", "columns"),
        "self_attention.q_layernorm.weight": ("self_attn.q_norm", "whole"),
        "self_attention.k_layernorm.weight": ("self_attn.k_norm", "whole"),
        "input_layernorm.weight": ("input_layernorm", "whole"),
        "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm", "whole"),  # TE fuses the norm
        "pre_mlp_layernorm.weight": ("post_attention_layernorm", "whole"),
        "mlp.router.weight": ("mlp.gate", "whole"),
    }
    if rest in layer:
        hf_name, shard = layer[rest]
        return Entry((f"{prefix}{hf_name}.weight",), shard)  # type: ignore[arg-type]
    matrix, expert = _expert(rest)
    at = f"{prefix}mlp.experts.{expert + expert_offset}."
    if matrix == "linear_fc1":
        names = (f"{at}gate_proj.weight", f"{at}up_proj.weight")
        return Entry(names, "gate_up", lambda gate, up: torch.cat([gate, up]), lambda both: both.chunk(2))
    assert matrix == "linear_fc2", name
    return Entry((f"{at}down_proj.weight",), "expert_columns")


def _expert(rest: str) -> tuple[str, int]:
    """Matrix and local expert number, from the sequential or from the grouped expert's name."""
    parts = rest.split(".")
    if parts[2] == "local_experts":  # mlp.experts.local_experts.3.linear_fc1.weight
        return parts[4], int(parts[3])
    return parts[2], int(parts[3].removeprefix("weight"))  # mlp.experts.linear_fc1.weight3


def _qkv(prefix: str, model: ModelConfig) -> Entry:
    """Megatron keeps, for each key-value head, its query heads, its key and its value together."""
    groups, hidden, dim = model.num_key_value_heads, model.hidden_size, model.head_dim
    queries = model.num_attention_heads // groups * dim

    def join(*query_key_value: torch.Tensor) -> torch.Tensor:
        return torch.cat([t.reshape(groups, -1, hidden) for t in query_key_value], 1).reshape(-1, hidden)

    def part(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pieces = qkv.reshape(groups, -1, hidden).split([queries, dim, dim], 1)
        return tuple(piece.reshape(-1, hidden) for piece in pieces)

    return Entry(tuple(f"{prefix}self_attn.{which}_proj.weight" for which in "qkv"), "rows", join, part)


def take_shard(full: torch.Tensor, shard: Shard, layout: Layout, ranks: "Ranks") -> torch.Tensor:
    """This rank's part of a full parameter."""
    if shard == "rows":
        return full.chunk(layout.tensor, 0)[ranks.tensor]
    if shard == "columns":
        return full.chunk(layout.tensor, 1)[ranks.tensor]
    if shard == "expert_columns":
        return full.chunk(layout.expert_tensor, 1)[ranks.expert_tensor]
    if shard == "gate_up":
        return torch.cat([half.chunk(layout.expert_tensor, 0)[ranks.expert_tensor] for half in full.chunk(2)])
    return full


@dataclass(frozen=True, slots=True)
class Ranks:
    """This rank's place on the axes that shard parameters."""

    tensor: int = 0
    expert_tensor: int = 0
    expert: int = 0
    pipeline: int = 0


def all_hf_names(model: ModelConfig) -> Iterator[str]:
    """Every tensor name a Hugging Face folder of this model must hold."""
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not model.tie_word_embeddings:
        yield "lm_head.weight"
    attention = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    for layer in range(model.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield from (f"{prefix}{norm}.weight" for norm in ("input_layernorm", "post_attention_layernorm"))
        yield from (f"{prefix}self_attn.{name}.weight" for name in attention)
        yield f"{prefix}mlp.gate.weight"
        for expert in range(model.num_experts):
            yield from (f"{prefix}mlp.experts.{expert}.{name}_proj.weight" for name in ("gate", "up", "down"))
