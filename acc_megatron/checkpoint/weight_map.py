"""How each Megatron parameter is made of Hugging Face tensors, and back; one entry a parameter.

Names on the Hugging Face side are an expert a tensor, which transformers 4 and 5, vLLM and SGLang all read;
`fused_name` says where transformers 5 keeps a layer's experts in one tensor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from acc_megatron.config import ModelConfig
from acc_megatron.layout import Layout


@dataclass(frozen=True, slots=True)
class Cut:
    """Along which dim a Hugging Face tensor is cut, and over which axis of the mesh."""

    dim: int
    axis: str  # "tensor" or "expert_tensor", a field of both Layout and Ranks


ROWS, COLUMNS = Cut(0, "tensor"), Cut(1, "tensor")
EXPERT_ROWS, EXPERT_COLUMNS = Cut(0, "expert_tensor"), Cut(1, "expert_tensor")


@dataclass(frozen=True, slots=True)
class Entry:
    """One Megatron parameter: its Hugging Face tensors, how each is cut over ranks, how they join and part.

    `join` takes whole tensors to the whole parameter, and a rank's cuts to that rank's parameter.
    """

    hf_names: tuple[str, ...]
    cut: Cut | None = None
    join: Callable[..., torch.Tensor] = lambda tensor: tensor
    part: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = lambda tensor: (tensor,)


def entry_for(name: str, layer_offset: int, expert_offset: int, model: ModelConfig) -> Entry:
    """The entry of a parameter of this rank by its Megatron name.

    `layer_offset` is the global number of the rank's first layer, `expert_offset` that of its first expert.
    """
    top = {
        "embedding.word_embeddings.weight": Entry(("model.embed_tokens.weight",), ROWS),
        "output_layer.weight": Entry(("lm_head.weight",), ROWS),
        "decoder.final_layernorm.weight": Entry(("model.norm.weight",)),
    }
    if name in top:
        return top[name]
    _, _, local, rest = name.split(".", 3)
    prefix = f"model.layers.{int(local) + layer_offset}."
    if rest == "self_attention.linear_qkv.weight":
        return _qkv(prefix, model)
    layer: dict[str, tuple[str, Cut | None]] = {
        "self_attention.linear_proj.weight": ("self_attn.o_proj", COLUMNS),
        "self_attention.q_layernorm.weight": ("self_attn.q_norm", None),
        "self_attention.k_layernorm.weight": ("self_attn.k_norm", None),
        "input_layernorm.weight": ("input_layernorm", None),
        "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm", None),  # TE fuses the norm
        "pre_mlp_layernorm.weight": ("post_attention_layernorm", None),
        "mlp.router.weight": ("mlp.gate", None),
    }
    if rest in layer:
        hf_name, cut = layer[rest]
        return Entry((f"{prefix}{hf_name}.weight",), cut)
    matrix, expert = _expert(rest)
    at = f"{prefix}mlp.experts.{expert + expert_offset}."
    if matrix == "linear_fc1":
        names = (f"{at}gate_proj.weight", f"{at}up_proj.weight")
        return Entry(names, EXPERT_ROWS, lambda gate, up: torch.cat([gate, up]), lambda both: both.chunk(2))
    assert matrix == "linear_fc2", name
    return Entry((f"{at}down_proj.weight",), EXPERT_COLUMNS)


def _expert(rest: str) -> tuple[str, int]:
    """Matrix and local expert number, from the sequential or from the grouped expert's name."""
    parts = rest.split(".")
    if parts[2] == "local_experts":  # mlp.experts.local_experts.3.linear_fc1.weight
        return parts[4], int(parts[3])
    return parts[2], int(parts[3].removeprefix("weight"))  # mlp.experts.linear_fc1.weight3


def _qkv(prefix: str, model: ModelConfig) -> Entry:
    """Megatron keeps, for each key-value head, its query heads, its key and its value together."""
    hidden, dim = model.hidden_size, model.head_dim
    queries = model.num_attention_heads // model.num_key_value_heads * dim

    def join(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        groups = key.shape[0] // dim
        return torch.cat([t.reshape(groups, -1, hidden) for t in (query, key, value)], 1).reshape(-1, hidden)

    def part(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pieces = qkv.reshape(-1, queries + 2 * dim, hidden).split([queries, dim, dim], 1)
        return tuple(piece.reshape(-1, hidden) for piece in pieces)

    return Entry(tuple(f"{prefix}self_attn.{which}_proj.weight" for which in "qkv"), ROWS, join, part)


def own_range(cut: Cut | None, shape: tuple[int, ...], layout: Layout, ranks: "Ranks") -> tuple[slice, ...]:
    """Where this rank's part of a Hugging Face tensor of that shape lies."""
    ranges = [slice(0, size) for size in shape]
    if cut is not None:
        part = shape[cut.dim] // getattr(layout, cut.axis)
        ranges[cut.dim] = slice(getattr(ranks, cut.axis) * part, (getattr(ranks, cut.axis) + 1) * part)
    return tuple(ranges)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This rank's place on the axes that shard parameters."""

    tensor: int = 0
    expert_tensor: int = 0
    expert: int = 0
    pipeline: int = 0


def hf_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a Hugging Face folder of this model must hold, an expert a tensor, with its shape."""
    hidden, dim, expert = model.hidden_size, model.head_dim, model.moe_intermediate_size
    queries, keys = model.num_attention_heads * dim, model.num_key_value_heads * dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    if not model.tie_word_embeddings:
        shapes["lm_head.weight"] = (model.vocab_size, hidden)
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "self_attn.q_norm": (dim,),
        "self_attn.k_norm": (dim,),
        "mlp.gate": (model.num_experts, hidden),
    }
    for number in range(model.num_experts):
        layer[f"mlp.experts.{number}.gate_proj"] = layer[f"mlp.experts.{number}.up_proj"] = (expert, hidden)
        layer[f"mlp.experts.{number}.down_proj"] = (hidden, expert)
    for number in range(model.num_hidden_layers):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (hidden,)}


def fused_name(name: str) -> tuple[str, int, int | None] | None:
    """Where transformers 5 may keep an expert's tensor: (name, expert, half of gate_up or None); None for others.

    `gate_up_proj` is `[experts, 2 x expert hidden, hidden]`, `down_proj` `[experts, hidden, expert hidden]`.
    """
    prefix, found, rest = name.partition(".mlp.experts.")
    if not found:
        return None
    expert, matrix, _ = rest.split(".")
    if matrix == "down_proj":
        return f"{prefix}.mlp.experts.down_proj", int(expert), None
    return f"{prefix}.mlp.experts.gate_up_proj", int(expert), ("gate_proj", "up_proj").index(matrix)


def fused_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a folder whose experts are fused, with its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in hf_shapes(model).items():
        place = fused_name(name)
        if place is None:
            shapes[name] = shape
        else:
            rows = shape[0] if place[2] is None else 2 * shape[0]
            shapes[place[0]] = (model.num_experts, rows, shape[1])
    return shapes


def parameter_names(model: ModelConfig) -> Iterator[str]:
    """The name of every parameter in a process that holds the whole model, experts one by one."""
    yield "embedding.word_embeddings.weight"
    if not model.tie_word_embeddings:
        yield "output_layer.weight"
    yield "decoder.final_layernorm.weight"
    attention = ("linear_qkv", "linear_proj", "q_layernorm", "k_layernorm")
    for layer in range(model.num_hidden_layers):
        at = f"decoder.layers.{layer}."
        yield from (f"{at}self_attention.{name}.weight" for name in attention)
        yield from (f"{at}{name}.weight" for name in ("input_layernorm", "pre_mlp_layernorm", "mlp.router"))
        for expert in range(model.num_experts):
            yield from (
                f"{at}mlp.experts.local_experts.{expert}.{name}.weight" for name in ("linear_fc1", "linear_fc2")
            )


def place_in_checkpoint(name: str) -> tuple[str, tuple[int, ...]]:
    """The key under which Megatron saves such a parameter, and its place on the key's first dims: layer, expert."""
    parts = name.split(".")
    if parts[1] != "layers":
        return name, ()
    layer, rest = int(parts[2]), parts[3:]
    if rest[1] != "experts":
        return ".".join(["decoder.layers", *rest]), (layer,)
    return ".".join(["decoder.layers.mlp.experts.experts", *rest[4:]]), (layer, int(rest[3]))
