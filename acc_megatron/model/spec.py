"""What Megatron's transformer block is made of: Transformer Engine's parts where it is, else plain torch."""

from functools import partial
from typing import Any

import torch
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.model.attention import PackedAttention
from acc_megatron.model.fp8_linear import EmulatedColumnParallelLinear, EmulatedRowParallelLinear, Emulation


class FoldedRMSNorm(torch.nn.RMSNorm):
    """RMSNorm whose weight gradient is summed over the tensor-parallel group under sequence parallelism.

    The norm before linear_qkv, which TE folds into that layer.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class RMSNorm(FoldedRMSNorm):
    """The other norms; their extra state in checkpoints is empty, but TE's norm looks for one."""

    def get_extra_state(self) -> None:
        """Nothing, under the name that TE's norm loads."""

    def set_extra_state(self, state: Any) -> None:
        """TE's is empty."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state")  # weights alone load too
        super()._load_from_state_dict(state_dict, prefix, *args)


class TorchSpecProvider(LocalSpecProvider):
    """Megatron's local linear layers with our norm and core attention, which take SP, CP and packed rows."""

    def __init__(self, emulated: Emulation | None = None) -> None:
        self.emulated = emulated  # FP8 in the linear layers

    def column_parallel_linear(self) -> Any:
        """Megatron's, or ours with FP8 emulated."""
        if self.emulated is None:
            return super().column_parallel_linear()
        return partial(EmulatedColumnParallelLinear, emulated=self.emulated)

    def row_parallel_linear(self) -> Any:
        """Megatron's, or ours with FP8 emulated."""
        if self.emulated is None:
            return super().row_parallel_linear()
        return partial(EmulatedRowParallelLinear, emulated=self.emulated)

    def grouped_mlp_modules(self, moe_use_grouped_gemm: bool) -> Any:
        """Experts one by one, of the linear layers above."""
        linear_fc1, linear_fc2 = self.column_parallel_linear(), self.row_parallel_linear()
        return partial(SequentialMLP, submodules=MLPSubmodules(linear_fc1=linear_fc1, linear_fc2=linear_fc2))

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, **_: Any) -> type:
        """Ours for every norm: megatron's own without TE refuses sequence parallelism."""
        return RMSNorm

    def core_attention(self) -> type:
        """Ours: megatron's own without TE refuses context parallelism and packed rows."""
        return PackedAttention


def block_spec(
    config: TransformerConfig, vp_stage: int | None = None, emulated: Emulation | None = None
) -> TransformerBlockSubmodules:
    """The decoder block's spec: TE's where it can be imported, torch's on a CPU without it, with FP8 emulated if asked.

    Raises EnvironmentProblem on a GPU without TE.
    """
    if HAVE_TE:
        return get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=vp_stage)
    if torch.cuda.is_available():
        raise EnvironmentProblem(
            "this machine has a GPU but transformer_engine cannot be imported: pip install transformer-engine[pytorch]"
        )
    first, num_layers = get_transformer_layer_offset(config, vp_stage), get_num_layers_to_build(config, vp_stage)
    specs = [
        _torch_layer(config, emulated if emulated is not None and emulated.covers(layer, config.num_layers) else None)
        for layer in range(first, first + num_layers)
    ]
    return TransformerBlockSubmodules(layer_specs=specs, layer_norm=RMSNorm)


def _torch_layer(config: TransformerConfig, emulated: Emulation | None) -> ModuleSpec:
    backend = TorchSpecProvider(emulated)
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
        input_layernorm=FoldedRMSNorm,
        self_attention=attention,
        self_attn_bda=get_bias_dropout_add,
        pre_mlp_layernorm=backend.layer_norm(),
        mlp=moe,
        mlp_bda=get_bias_dropout_add,
        # TE keeps this norm in linear_qkv: one name in checkpoints for both specs
        sharded_state_dict_keys_map={"input_layernorm.": "self_attention.linear_qkv.layer_norm_"},
    )
    return ModuleSpec(module=TransformerLayer, submodules=submodules)
