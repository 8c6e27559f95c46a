"""What Megatron's transformer block is made of: Transformer Engine's parts on GPU, plain torch on CPU."""

from typing import Any

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from acc_megatron.model.attention import PackedAttention


class RMSNorm(torch.nn.RMSNorm):
    """RMSNorm whose weight gradient is summed over the tensor-parallel group under sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class TorchSpecProvider(LocalSpecProvider):
    """Megatron's local linear layers with our norm and core attention, which take SP, CP and packed rows."""

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, **_: Any) -> type:
        """Ours for every norm: megatron's own without TE refuses sequence parallelism."""
        return RMSNorm

    def core_attention(self) -> type:
        """Ours: megatron's own without TE refuses context parallelism and packed rows."""
        return PackedAttention


def block_spec(config: TransformerConfig, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """The decoder block's spec for this machine: TE's where CUDA is present, torch's elsewhere."""
    if torch.cuda.is_available():
        return get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=vp_stage)
    num_layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[_torch_layer(config)] * num_layers, layer_norm=RMSNorm)


def _torch_layer(config: TransformerConfig) -> ModuleSpec:
    backend = TorchSpecProvider()
    attention = ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=backend.column_parallel_linear(),
            core_attention=backend.core_attention(),
            linear_proj=backend.row_parallel_linear(),
            q_layernorm=backend.layer_norm(for_qk=True),
            k_layernorm=backend.layer_norm(for_qk=True),
        ),
    )
    moe = get_moe_module_spec_for_backend(backend, num_experts=config.num_moe_experts, moe_grouped_gemm=False)
    submodules = TransformerLayerSubmodules(
        input_layernorm=backend.layer_norm(),
        self_attention=attention,
        self_attn_bda=get_bias_dropout_add,
        pre_mlp_layernorm=backend.layer_norm(),
        mlp=moe,
        mlp_bda=get_bias_dropout_add,
    )
    return ModuleSpec(module=TransformerLayer, submodules=submodules)
