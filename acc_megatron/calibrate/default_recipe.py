"""The recipe that is measured where the user names none: a layer of Qwen3-30B-A3B."""

import torch

from acc_megatron.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig

QWEN3_30B_A3B = ModelConfig(
    vocab_size=151_936,
    hidden_size=2048,
    num_hidden_layers=48,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=128,
    max_position_embeddings=262_144,
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
    rope_theta=1e7,
)


def default_recipe() -> Config:
    """Packed rows of 131,072 tokens in bfloat16 on GPU, of 1,024 in float32 on CPU."""
    on_gpu = torch.cuda.is_available()
    return Config(
        name="calibration",
        model=QWEN3_30B_A3B,
        data=DataConfig(path="", seq_length_tokens=131_072 if on_gpu else 1024),
        optimizer=OptimizerConfig(learning_rate=1e-5, min_learning_rate=1e-6),
        train=TrainConfig(run_dir="", global_batch_rows=1, precision="bfloat16" if on_gpu else "float32"),
    )
