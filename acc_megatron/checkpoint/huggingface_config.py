"""A model's config.json: read into a ModelConfig, refused by key, and written in names that every reader knows."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from acc_megatron.config import ModelConfig
from acc_megatron.errors import CheckpointError


def read_model_config(path: Path) -> ModelConfig:
    """ModelConfig of a folder's config.json; CheckpointError names what this code does not build."""
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no config.json: it is no Hugging Face folder")
    try:
        hf = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if hf.get("model_type") != "qwen3_moe":
        raise CheckpointError(f"{file}: model_type is {hf.get('model_type')!r}; only 'qwen3_moe' is built")
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    refused = {
        "rope_type": rope.get("rope_type", "default") != "default",
        "mlp_only_layers": bool(hf.get("mlp_only_layers")),
        "decoder_sparse_step": hf.get("decoder_sparse_step", 1) != 1,
        "attention_bias": bool(hf.get("attention_bias")),
        "hidden_act": hf.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(hf.get("use_sliding_window")),
    }
    for key in (key for key, is_refused in refused.items() if is_refused):
        raise CheckpointError(f"{file}: {key} = {rope.get(key, hf.get(key))!r} is not supported")
    names = {field: field for field in ModelConfig.__dataclass_fields__ if field in hf}
    values: dict[str, Any] = {field: hf[name] for field, name in names.items()}
    values["num_experts"] = hf.get("num_experts", hf.get("num_local_experts"))
    values["rope_theta"] = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
    missing = [
        name
        for name, field in ModelConfig.__dataclass_fields__.items()
        if values.get(name) is None and field.default is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing)}")
    return ModelConfig(**values)


def hf_config(model: ModelConfig, dtype_name: str, eos_id: int | None, pad_id: int | None) -> dict[str, Any]:
    """config.json of a model, in names that transformers 4 and 5, vLLM and SGLang read."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.moe_intermediate_size,
        "moe_intermediate_size": model.moe_intermediate_size,
        "num_experts": model.num_experts,
        "num_experts_per_tok": model.num_experts_per_tok,
        "norm_topk_prob": model.norm_topk_prob,
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": model.tie_word_embeddings,
        "initializer_range": model.initializer_range,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "router_aux_loss_coef": 0.0,
        "use_cache": True,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": dtype_name,
    }
