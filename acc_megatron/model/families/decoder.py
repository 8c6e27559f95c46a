"""What Qwen3's decoders share: grouped-query attention with normalised queries and keys, RMSNorm, a gated MLP."""

import dataclasses
from pathlib import Path
from typing import Any

from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families.family import Division
from acc_megatron.model.families.rope_scaling import (
    attention_factor,
    check_rope_scaling,
    read_rope_scaling,
    write_rope_scaling,
)


class Decoder:
    """Base class of families; a subclass adds its MLP."""

    model_type: str
    architecture: str  # class name in transformers

    def config_from_hf(self, hf: dict[str, Any], file: Path) -> ModelConfig:
        """Convert the keys that all decoders share, and those of ModelConfig that have the same name."""
        unsupported = {
            "mlp_only_layers": bool(hf.get("mlp_only_layers")),
            "decoder_sparse_step": hf.get("decoder_sparse_step", 1) != 1,
            "attention_bias": bool(hf.get("attention_bias")),
            "hidden_act": hf.get("hidden_act", "silu") != "silu",
            "use_sliding_window": bool(hf.get("use_sliding_window")),
        }
        for key in (key for key, is_unsupported in unsupported.items() if is_unsupported):
            raise CheckpointError(f"{file}: {key} = {hf[key]!r} is not supported")
        mlp_values = self.mlp_values(hf)
        values = {name: hf[name] for name in ModelConfig.__dataclass_fields__ if name in hf} | mlp_values
        values["family"] = self.model_type
        values["rope_scaling"] = read_rope_scaling(hf, file)
        rope = hf.get("rope_parameters") or {}
        values["rope_theta"] = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
        required = [
            name
            for name, field in ModelConfig.__dataclass_fields__.items()
            if field.default is dataclasses.MISSING or name in mlp_values
        ]
        if missing := [name for name in required if values.get(name) is None]:
            raise CheckpointError(f"{file} has no {', '.join(missing)}")
        return ModelConfig(**values)

    def mlp_values(self, hf: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the MLP by their names in ModelConfig; None where config.json has none."""
        raise NotImplementedError

    def config_to_hf(self, model: ModelConfig) -> dict[str, Any]:
        """Return the keys that all decoders share."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden_size,
            "num_hidden_layers": model.num_hidden_layers,
            "num_attention_heads": model.num_attention_heads,
            "num_key_value_heads": model.num_key_value_heads,
            "head_dim": model.head_dim,
            "max_position_embeddings": model.window_tokens,
            "rms_norm_eps": model.rms_norm_eps,
            "rope_theta": model.rope_theta,
            "rope_scaling": write_rope_scaling(model.rope_scaling),
            "tie_word_embeddings": model.tie_word_embeddings,
            "initializer_range": model.initializer_range,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_cache": True,
        }

    def check(self, model: ModelConfig) -> None:
        """Raise ConfigError for numbers that the rotary embedding is not defined for."""
        check_rope_scaling(model)

    def divisions(self, model: ModelConfig, layout: Layout) -> list[Division]:
        """Heads and vocabulary divide over the tensor axis."""
        return [
            Division(f"model.{name}", getattr(model, name), "parallel.tensor", layout.tensor)
            for name in ("num_attention_heads", "num_key_value_heads", "vocab_size")
        ]

    def transformer_fields(self, model: ModelConfig) -> dict[str, Any]:
        """Return Megatron's fields of everything except the MLP's sizes."""
        import torch.nn.functional as F

        scaling = model.rope_scaling
        return {
            "num_layers": model.num_hidden_layers,
            "hidden_size": model.hidden_size,
            "num_attention_heads": model.num_attention_heads,
            "num_query_groups": model.num_key_value_heads,
            "kv_channels": model.head_dim,
            "layernorm_epsilon": model.rms_norm_eps,
            "normalization": "RMSNorm",
            "qk_layernorm": True,
            "gated_linear_unit": True,
            "activation_func": F.silu,
            "add_bias_linear": False,
            "add_qkv_bias": False,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "init_method_std": model.initializer_range,
            # Transformer Engine's fused rotary embedding cannot scale queries and keys, so the softmax does it
            "softmax_scale": model.head_dim**-0.5 * attention_factor(scaling) ** 2 if scaling else None,
        }

    def block_spec(self, transformer: Any, vp_stage: int | None, emulated: Any) -> Any:
        """Return the spec that Megatron derives from the fields above."""
        from acc_megatron.model.spec import block_spec

        return block_spec(transformer, vp_stage, emulated)

    def attention_weights(self, model: ModelConfig) -> int:
        """Count the weights of one layer's query, key, value and output projections."""
        queries, keys = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
        return model.hidden_size * (2 * queries + 2 * keys)

    def norm_weights(self, model: ModelConfig) -> int:
        """Count the weights of one layer's four norms: before attention and MLP, and of queries and keys."""
        return 2 * model.hidden_size + 2 * model.head_dim

    def qkv_weights(self, model: ModelConfig, layout: Layout) -> int:
        """Count the weights of the fused query, key and value projection on one rank."""
        heads = model.num_attention_heads + 2 * model.num_key_value_heads
        return heads * model.head_dim // layout.tensor * model.hidden_size

    def attention_flops_per_squared_token(self, model: ModelConfig) -> int:
        """Scores and their use: 2 products x 2 FLOPs x heads x head_dim, for half of the square."""
        return 2 * model.num_attention_heads * model.head_dim

    def quantised_dims(self, model: ModelConfig, parallel: ParallelConfig) -> list[tuple[str, int]]:
        """Return the dims of the attention's projections."""
        heads, groups, dim = model.num_attention_heads, model.num_key_value_heads, model.head_dim
        tensor = parallel.tensor
        return [
            ("model.hidden_size", model.hidden_size),
            (
                f"(num_attention_heads {heads} + 2 x num_key_value_heads {groups}) x head_dim {dim} / tp {tensor}",
                (heads + 2 * groups) * dim // tensor,
            ),
            (f"num_attention_heads {heads} x head_dim {dim} / tp {tensor}", heads * dim // tensor),
        ]
