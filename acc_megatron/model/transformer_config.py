"""Our settings in Megatron's own fields: one function, so that each can be traced to what it does."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import Config, Fp8Config, MemoryConfig, ModelConfig, MoEConfig, ParallelConfig
from acc_megatron.layout import Layout
from acc_megatron.model.precision import PRECISIONS, transformer_fields

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, kind.dtype) for name, kind in PRECISIONS.items()}
# Megatron's fused CUDA paths, which have no CPU form
CPU_ONLY: dict[str, Any] = {
    "use_cpu_initialization": True,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "gradient_accumulation_fusion": False,
    "persist_layer_norm": False,
    "batch_p2p_comm": False,
}


def training_config(config: Config, layout: Layout) -> TransformerConfig:
    """The TransformerConfig of a training run."""
    return transformer_config(
        config.model,
        layout,
        precision=config.train.precision,
        parallel=config.parallel,
        moe=config.moe,
        memory=config.memory,
        fp8=config.fp8,
    )


def transformer_config(
    model: ModelConfig,
    layout: Layout,
    *,
    precision: str,
    parallel: ParallelConfig | None = None,
    moe: MoEConfig | None = None,
    memory: MemoryConfig | None = None,
    fp8: Fp8Config | None = None,
) -> TransformerConfig:
    """Megatron's config of a Qwen3-MoE; `norm_topk_prob` is softmax after top-k, the router runs in float32.

    FP8 is Transformer Engine's, and asked for where an `fp8` is given; without it spec.py emulates.
    """
    parallel, moe, memory = parallel or ParallelConfig(), moe or MoEConfig(), memory or MemoryConfig()
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
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        calculate_per_token_loss=True,
        deallocate_pipeline_outputs=True,
        **_parallel_fields(layout, parallel),
        **_moe_fields(model, moe),
        **_memory_fields(memory),
        **(transformer_fields(precision, fp8, dispatcher=moe.dispatcher) if HAVE_TE and fp8 else {}),
        **_device_fields(moe),
    )


def _parallel_fields(layout: Layout, parallel: ParallelConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "tensor_model_parallel_size": layout.tensor,
        "sequence_parallel": layout.tensor > 1,
        "pipeline_model_parallel_size": layout.pipeline,
        "context_parallel_size": layout.context,
        "expert_model_parallel_size": layout.expert,
        "expert_tensor_parallel_size": layout.expert_tensor,
    }
    if parallel.virtual_pipeline > 1:
        fields["virtual_pipeline_model_parallel_size"] = parallel.virtual_pipeline
        fields["microbatch_group_size_per_vp_stage"] = layout.pipeline
    if layout.context > 1 and torch.cuda.is_available():
        fields["cp_comm_type"] = parallel.context_communication
        if parallel.hierarchical_context:
            fields["hierarchical_context_parallel_sizes"] = parallel.hierarchical_context
    return fields


def _moe_fields(model: ModelConfig, moe: MoEConfig) -> dict[str, Any]:
    flex = {"deepep": "deepep", "hybridep": "hybridep"}.get(moe.dispatcher)
    fields: dict[str, Any] = {
        "num_moe_experts": model.num_experts,
        "moe_router_topk": model.num_experts_per_tok,
        "moe_ffn_hidden_size": model.moe_intermediate_size,
        "moe_layer_freq": 1,
        "moe_router_pre_softmax": not model.norm_topk_prob,
        "moe_router_score_function": "softmax",
        "moe_router_dtype": "fp32",
        "moe_router_load_balancing_type": moe.load_balancing,
        "moe_aux_loss_coeff": moe.load_balancing_coefficient if moe.load_balancing != "none" else 0.0,
        "moe_z_loss_coeff": moe.z_loss_coefficient or None,
        "moe_token_dispatcher_type": "flex" if flex else moe.dispatcher,
    }
    return fields | ({"moe_flex_dispatcher_backend": flex} if flex else {})


def _memory_fields(memory: MemoryConfig) -> dict[str, Any]:
    if memory.recompute == "full":
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    if memory.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": list(memory.recompute_modules)}
    if memory.offload_layers:
        return {"cpu_offloading": True, "cpu_offloading_num_layers": memory.offload_layers}
    return {}


def _device_fields(moe: MoEConfig) -> dict[str, Any]:
    """Transformer Engine's fused paths where it is, for the same mathematics; without CUDA no kernels of Megatron's."""
    fused = {
        "moe_grouped_gemm": moe.grouped_gemm and HAVE_TE,
        "moe_permute_fusion": HAVE_TE,
        "apply_rope_fusion": HAVE_TE,
    }
    return fused | ({} if torch.cuda.is_available() else CPU_ONLY)
