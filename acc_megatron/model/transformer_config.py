"""Our settings as Megatron's TransformerConfig; the only place that makes one."""

from typing import Any

import torch
from megatron.core.extensions.transformer_engine import HAVE_TE, fused_topk_with_score_function
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.config import Config, Fp8Config, MemoryConfig, ModelConfig, MoEConfig, ParallelConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.precision import PRECISIONS, transformer_fields

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, kind.dtype) for name, kind in PRECISIONS.items()}
# turns off Megatron's fused CUDA code, which has no CPU form
CPU_ONLY: dict[str, Any] = {
    "use_cpu_initialization": True,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "persist_layer_norm": False,
}


def training_config(config: Config, layout: Layout) -> TransformerConfig:
    """Return the TransformerConfig of a training run."""
    return transformer_config(
        config.model,
        layout,
        precision=config.train.precision,
        parallel=config.parallel,
        moe=config.moe,
        memory=config.memory,
        fp8=config.fp8,
        deterministic=config.train.deterministic,
        has_main_grad=True,
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
    deterministic: bool = False,
    has_main_grad: bool = False,
) -> TransformerConfig:
    """Return Megatron's config of a model in a layout; docs/megatron_settings.md explains every field.

    Without `fp8`, an FP8 precision only sets the dtype. With it, Transformer Engine's FP8 is turned on if Transformer
    Engine can be imported; otherwise spec.py emulates FP8. With `has_main_grad` the parameters will have the float32
    buffers of DistributedDataParallel, and Transformer Engine's products add the weights' gradients to them.
    """
    parallel, moe, memory = parallel or ParallelConfig(), moe or MoEConfig(), memory or MemoryConfig()
    dtype = DTYPES[precision]
    return TransformerConfig(
        attention_softmax_in_fp32=True,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        calculate_per_token_loss=True,
        deallocate_pipeline_outputs=True,
        deterministic_mode=deterministic,
        gradient_accumulation_fusion=has_main_grad and HAVE_TE,
        **FAMILIES[model.family].transformer_fields(model),
        **_parallel_fields(layout, parallel),
        **(_moe_fields(moe) if model.num_experts else {}),
        **_memory_fields(memory),
        **(transformer_fields(precision, fp8, dispatcher=moe.dispatcher) if HAVE_TE and fp8 else {}),
        **_device_fields(moe, deterministic=deterministic),
    )


def _parallel_fields(layout: Layout, parallel: ParallelConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "tensor_model_parallel_size": layout.tensor,
        "sequence_parallel": layout.tensor > 1,
        "pipeline_model_parallel_size": layout.pipeline,
        "context_parallel_size": layout.context,
        "expert_model_parallel_size": layout.expert,
        "expert_tensor_parallel_size": layout.expert_tensor,
        # gloo has no batches of messages, and overlapped exchanges need single ones
        "batch_p2p_comm": torch.cuda.is_available() and parallel.virtual_pipeline == 1,
    }
    if parallel.virtual_pipeline > 1:
        fields["virtual_pipeline_model_parallel_size"] = parallel.virtual_pipeline
        fields["microbatch_group_size_per_vp_stage"] = layout.pipeline
        # exchanges run while the other chunks compute; Megatron's schedule of a single chunk cannot do this
        fields["overlap_p2p_comm"] = True
    if layout.context > 1 and torch.cuda.is_available():
        fields["cp_comm_type"] = parallel.context_communication
        if parallel.hierarchical_context:
            fields["hierarchical_context_parallel_sizes"] = parallel.hierarchical_context
    return fields


def _moe_fields(moe: MoEConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "moe_router_load_balancing_type": moe.load_balancing,
        "moe_aux_loss_coeff": moe.load_balancing_coefficient if moe.load_balancing != "none" else 0.0,
        "moe_z_loss_coeff": moe.z_loss_coefficient or None,
    }
    if moe.dispatcher in ("deepep", "hybridep"):
        return fields | {"moe_token_dispatcher_type": "flex", "moe_flex_dispatcher_backend": moe.dispatcher}
    return fields | {"moe_token_dispatcher_type": moe.dispatcher}


def _memory_fields(memory: MemoryConfig) -> dict[str, Any]:
    if memory.recompute == "full":
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    fields: dict[str, Any] = {}
    if memory.recompute == "selective":
        fields = {"recompute_granularity": "selective", "recompute_modules": list(memory.recompute_modules)}
    if memory.offload_modules:
        fields |= {"fine_grained_activation_offloading": True, "offload_modules": list(memory.offload_modules)}
    return fields


def _device_fields(moe: MoEConfig, *, deterministic: bool) -> dict[str, Any]:
    """Return the fused operations that Transformer Engine and CUDA have; without CUDA turn off Megatron's kernels."""
    fused = {
        "moe_grouped_gemm": moe.grouped_gemm and HAVE_TE,
        "moe_permute_fusion": HAVE_TE,
        # the order in which the fused balancing loss adds is not documented
        "moe_router_fusion": fused_topk_with_score_function is not None and not deterministic,
        "apply_rope_fusion": HAVE_TE,
    }
    if not torch.cuda.is_available():
        return fused | CPU_ONLY
    # the device is not synchronised after each exchange of a pipeline, which only old versions of torch needed
    return fused | {"bias_activation_fusion": True, "batch_p2p_sync": False}
