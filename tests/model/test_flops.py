"""FLOPs of training, compared with published figures and with a count by hand."""

import pytest

from acc_megatron.config import ModelConfig
from acc_megatron.model.flops import forward_flops, training_flops

QWEN3_30B_A3B = ModelConfig(
    vocab_size=151_936,
    hidden_size=2048,
    num_hidden_layers=48,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=128,
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
    max_position_embeddings=262_144,
)


def test_flops_per_token_match_the_speeds_that_nvidia_published() -> None:
    # Megatron-Bridge 26.04 performance summary: 8,901 tokens/s and 205 model TFLOP/s per GPU, sequences of 4,096 tokens
    per_token = training_flops(QWEN3_30B_A3B, tokens=4096, squared_tokens=4096**2, head_tokens=4096) / 4096
    assert per_token == pytest.approx(205e12 / 8901, rel=5e-3)
    # Automodel's: 12,040 tokens/s and 277 TFLOP/s
    assert per_token == pytest.approx(277e12 / 12_040, rel=5e-3)


def test_attention_flops_depend_on_documents_and_not_on_the_packed_row() -> None:
    whole = forward_flops(QWEN3_30B_A3B, tokens=8192, squared_tokens=8192**2)
    halves = forward_flops(QWEN3_30B_A3B, tokens=8192, squared_tokens=2 * 4096**2)
    # scores and their use: heads x head_dim multiplications and additions each, for each of the l^2 / 2 pairs
    pairs = (8192**2 - 2 * 4096**2) // 2
    assert whole - halves == 48 * pairs * 2 * (2 * 32 * 128)
