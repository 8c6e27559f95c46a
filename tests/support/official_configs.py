"""config.json of the Qwen3 releases, from their folders on huggingface.co/Qwen, and the sizes on their model cards."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED: dict[str, Any] = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_645,
    "head_dim": 128, "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-6, "rope_scaling": None,
    "sliding_window": None, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151_936,
}  # fmt: skip


@dataclass(frozen=True)
class Release:
    """One release: its config.json, and what its model card says in billions."""

    config: dict[str, Any]
    parameters: float
    without_embeddings: float
    activated: float | None = None


def _dense(hidden: int, width: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    return SHARED | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": hidden,
        "intermediate_size": width, "num_hidden_layers": layers, "max_window_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 8, "max_position_embeddings": 40_960,
        "rope_theta": 1_000_000, "tie_word_embeddings": hidden <= 2560,
    } | changes  # fmt: skip


def _moe(hidden: int, layers: int, heads: int, expert_width: int, **changes: Any) -> dict[str, Any]:
    return SHARED | {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": hidden,
        "intermediate_size": 3 * hidden, "moe_intermediate_size": expert_width, "num_hidden_layers": layers,
        "max_window_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 4, "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "output_router_logits": False, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
        "max_position_embeddings": 40_960, "rope_theta": 1_000_000,
    } | changes  # fmt: skip


LONG = {"max_position_embeddings": 262_144}
A3B, A22B = (2048, 48, 32, 768), (4096, 94, 64, 1536)
RELEASES = {
    "Qwen3-0.6B": Release(_dense(1024, 3072, 28, 16), 0.6, 0.44),
    "Qwen3-1.7B": Release(_dense(2048, 6144, 28, 16), 1.7, 1.4),
    "Qwen3-4B": Release(_dense(2560, 9728, 36, 32), 4.0, 3.6),
    "Qwen3-4B-Instruct-2507": Release(_dense(2560, 9728, 36, 32, **LONG, rope_theta=5_000_000), 4.0, 3.6),
    "Qwen3-8B": Release(_dense(4096, 12288, 36, 32), 8.2, 6.95),
    "Qwen3-14B": Release(_dense(5120, 17408, 40, 40), 14.8, 13.2),
    "Qwen3-32B": Release(_dense(5120, 25600, 64, 64), 32.8, 31.2),
    "Qwen3-30B-A3B": Release(_moe(*A3B), 30.5, 29.9, 3.3),
    "Qwen3-30B-A3B-Base": Release(_moe(*A3B, max_position_embeddings=32_768), 30.5, 29.9, 3.3),
    "Qwen3-30B-A3B-Instruct-2507": Release(_moe(*A3B, **LONG, rope_theta=10_000_000), 30.5, 29.9, 3.3),
    "Qwen3-30B-A3B-Thinking-2507": Release(_moe(*A3B, **LONG, rope_theta=10_000_000), 30.5, 29.9, 3.3),
    "Qwen3-Coder-30B-A3B-Instruct": Release(_moe(*A3B, **LONG, rope_theta=10_000_000), 30.5, 29.9, 3.3),
    "Qwen3-235B-A22B": Release(_moe(*A22B), 235.0, 234.0, 22.0),
    "Qwen3-235B-A22B-Thinking-2507": Release(_moe(*A22B, **LONG, rope_theta=5_000_000), 235.0, 234.0, 22.0),
}


def write_release(folder: Path, name: str, **changes: Any) -> Path:
    """Write the config.json of a release into `folder/name`."""
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps(RELEASES[name].config | changes))
    return folder / name
