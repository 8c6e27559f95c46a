"""Qwen3-MoE as megatron-core sees it: our ModelConfig to Megatron's, and the model itself."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import Config, ModelConfig
from acc_megatron.layout import Layout
from acc_megatron.model.spec import block_spec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
    "core_attention": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
}
# Megatron's fused CUDA paths, which have no CPU form
CPU_ONLY: dict[str, Any] = {
    "use_cpu_initialization": True,
    "moe_grouped_gemm": False,
    "moe_permute_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "apply_rope_fusion": False,
    "masked_softmax_fusion": False,
    "gradient_accumulation_fusion": False,
    "persist_layer_norm": False,
    "batch_p2p_comm": False,
}
# no GPU has confirmed these; they are Megatron's and TE's own switches for the same mathematics
GPU_ONLY: dict[str, Any] = {"moe_grouped_gemm": True, "moe_permute_fusion": True, "apply_rope_fusion": True}


def transformer_config(
    model: ModelConfig, layout: Layout, *, precision: str, recompute: str = "none"
) -> TransformerConfig:
    """Megatron's config of a Qwen3-MoE; `norm_topk_prob` is softmax after top-k, the router runs in float32."""
    dtype = DTYPES[precision]
    return TransformerConfig(
        num_layers=model.num_hidden_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_key_value_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.moe_intermediate_size,
        layernorm_epsilon=model.rms_norm_eps,
        normalization="RMSNorm",
        qk_layernorm=True,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        add_qkv_bias=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        attention_softmax_in_fp32=True,
        init_method_std=model.initializer_range,
        num_moe_experts=model.num_experts,
        moe_router_topk=model.num_experts_per_tok,
        moe_ffn_hidden_size=model.moe_intermediate_size,
        moe_layer_freq=1,
        moe_router_pre_softmax=not model.norm_topk_prob,
        moe_router_score_function="softmax",
        moe_router_dtype="fp32",
        moe_router_load_balancing_type="none",
        moe_token_dispatcher_type="alltoall",
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        context_parallel_size=layout.context,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=layout.expert_tensor,
        sequence_parallel=layout.tensor > 1,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        calculate_per_token_loss=True,
        deallocate_pipeline_outputs=True,
        **RECOMPUTE[recompute],
        **(GPU_ONLY if torch.cuda.is_available() else CPU_ONLY),
    )


def build_model(
    model: ModelConfig,
    transformer: TransformerConfig,
    *,
    first_stage: bool = True,
    last_stage: bool = True,
    vp_stage: int | None = None,
) -> GPTModel:
    """This rank's part of the model, with megatron-core's initial weights.

    Expert parameters are marked `allreduce = False` in every layout, also where one process holds them all, so
    that the optimizer is always a (dense, expert) chain and checkpoints have one structure.
    """
    built = GPTModel(
        transformer,
        block_spec(transformer, vp_stage),
        vocab_size=model.vocab_size,
        max_sequence_length=model.max_position_embeddings,
        pre_process=first_stage,
        post_process=last_stage,
        position_embedding_type="rope",
        rotary_base=model.rope_theta,
        share_embeddings_and_output_weights=model.tie_word_embeddings,
        parallel_output=True,
        vp_stage=vp_stage,
    )
    for name, parameter in built.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False
    return built


def full_config(config: Config, layout: Layout) -> TransformerConfig:
    """The TransformerConfig of a training run."""
    return transformer_config(config.model, layout, precision=config.train.precision, recompute=config.train.recompute)
