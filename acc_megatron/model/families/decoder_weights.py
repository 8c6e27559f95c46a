"""The weights that Qwen3's decoders share: embeddings, norms and attention."""

from collections.abc import Iterator

import torch

from acc_megatron.config import ModelConfig
from acc_megatron.model.weight_map import Entry, FusedPlace, Split

ROWS, COLUMNS = Split(0, "tensor"), Split(1, "tensor")


class DecoderWeights:
    """Base class of weight maps; a subclass adds its MLP."""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model

    def entry(self, name: str, *, first_layer: int = 0, first_expert: int = 0) -> Entry:
        """Return the entry of a parameter by its Megatron name on one rank."""
        # with tied embeddings the last pipeline stage has a copy of the embedding under the name of the head
        head = "model.embed_tokens.weight" if self.model.tie_word_embeddings else "lm_head.weight"
        top = {
            "embedding.word_embeddings.weight": Entry(("model.embed_tokens.weight",), ROWS),
            "output_layer.weight": Entry((head,), ROWS),
            "decoder.final_layernorm.weight": Entry(("model.norm.weight",)),
        }
        if name in top:
            return top[name]
        _, _, local_layer, rest = name.split(".", 3)
        prefix = f"model.layers.{int(local_layer) + first_layer}."
        if rest == "self_attention.linear_qkv.weight":
            return self._qkv(prefix)
        layer: dict[str, tuple[str, Split | None]] = {
            "self_attention.linear_proj.weight": ("self_attn.o_proj", COLUMNS),
            "self_attention.q_layernorm.weight": ("self_attn.q_norm", None),
            "self_attention.k_layernorm.weight": ("self_attn.k_norm", None),
            "input_layernorm.weight": ("input_layernorm", None),
            "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm", None),  # fused by Transformer Engine
            "pre_mlp_layernorm.weight": ("post_attention_layernorm", None),
        }
        if rest in layer:
            hf_name, split = layer[rest]
            return Entry((f"{prefix}{hf_name}.weight",), split)
        return self.mlp_entry(rest, prefix, first_expert)

    def mlp_entry(self, name: str, prefix: str, first_expert: int) -> Entry:
        """Return the entry of a parameter of the MLP by its name in its layer; `prefix` is the layer's in HF names."""
        raise NotImplementedError

    def _qkv(self, prefix: str) -> Entry:
        """Megatron stores, for each key-value head, its query heads, its key and its value together."""
        hidden, dim = self.model.hidden_size, self.model.head_dim
        queries = self.model.num_attention_heads // self.model.num_key_value_heads * dim

        def join(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            # the factors of an adapter are joined too, and have fewer columns
            groups, columns = key.shape[0] // dim, key.shape[1]
            return torch.cat([t.reshape(groups, -1, columns) for t in (query, key, value)], 1).reshape(-1, columns)

        def separate(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
            parts = qkv.reshape(-1, queries + 2 * dim, hidden).split([queries, dim, dim], 1)
            return tuple(part.reshape(-1, hidden) for part in parts)

        return Entry(tuple(f"{prefix}self_attn.{which}_proj.weight" for which in "qkv"), ROWS, join, separate)

    def parameter_names(self) -> Iterator[str]:
        """Yield the Megatron name of every parameter in a process that has the complete model."""
        yield "embedding.word_embeddings.weight"
        if not self.model.tie_word_embeddings:
            yield "output_layer.weight"
        yield "decoder.final_layernorm.weight"
        attention = ("linear_qkv", "linear_proj", "q_layernorm", "k_layernorm")
        for layer in range(self.model.num_hidden_layers):
            prefix = f"decoder.layers.{layer}."
            yield from (f"{prefix}self_attention.{name}.weight" for name in attention)
            yield from (f"{prefix}{name}.weight" for name in ("input_layernorm", "pre_mlp_layernorm"))
            yield from (f"{prefix}{name}" for name in self.mlp_parameter_names())

    def mlp_parameter_names(self) -> Iterator[str]:
        """Yield the names of one layer's MLP parameters."""
        raise NotImplementedError

    def shapes(self, *, is_fused: bool = False) -> dict[str, tuple[int, ...]]:
        """Return every tensor of a Hugging Face folder with its shape."""
        model = self.model
        hidden, dim = model.hidden_size, model.head_dim
        queries, keys = model.num_attention_heads * dim, model.num_key_value_heads * dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
        if not model.tie_word_embeddings:
            shapes["lm_head.weight"] = (model.vocab_size, hidden)
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.o_proj.weight": (hidden, queries),
            "self_attn.q_norm.weight": (dim,),
            "self_attn.k_norm.weight": (dim,),
            **self.mlp_shapes(is_fused=is_fused),
        }
        for number in range(model.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        return shapes | {"model.norm.weight": (hidden,)}

    def mlp_shapes(self, *, is_fused: bool) -> dict[str, tuple[int, ...]]:
        """Return the tensors of one layer's MLP by their name in the layer."""
        raise NotImplementedError

    def fused_place(self, name: str) -> FusedPlace | None:
        """Return None: without experts no tensor is fused."""
        return None
