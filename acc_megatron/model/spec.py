"""Megatron's layer spec: Transformer Engine's modules if they can be imported, otherwise modules in plain torch."""

import dataclasses
from functools import partial
from typing import Any

import torch
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec, get_mlp_module_spec_for_backend
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
from acc_megatron.model.fp8.emulated_linear import (
    EmulatedColumnParallelLinear,
    EmulatedRowParallelLinear,
    Emulation,
)
from acc_megatron.model.padding_router import PaddingRouter
from acc_megatron.optional import install_command


class FoldedRMSNorm(torch.nn.RMSNorm):
    """The norm before linear_qkv or a dense MLP, which Transformer Engine fuses into that layer.

    Under sequence parallelism, its weight's gradient is summed over the tensor-parallel group.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class RMSNorm(FoldedRMSNorm):
    """All other norms, with an empty extra state in checkpoints, which Transformer Engine's norm expects to load."""

    def get_extra_state(self) -> None:
        """Return an empty extra state."""

    def set_extra_state(self, state: Any) -> None:
        """Ignore the extra state: Transformer Engine's is empty too."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state")  # allow a state dict that contains weights only
        super()._load_from_state_dict(state_dict, prefix, *args)


class TorchSpecProvider(LocalSpecProvider):
    """Megatron's local linear layers with our norm and core attention, which support SP, CP and packed rows."""

    def __init__(self, emulated: Emulation | None = None) -> None:
        self.emulated = emulated

    def column_parallel_linear(self) -> Any:
        """Return Megatron's layer, or ours if FP8 is emulated."""
        if self.emulated is None:
            return super().column_parallel_linear()
        return partial(EmulatedColumnParallelLinear, emulated=self.emulated)

    def row_parallel_linear(self) -> Any:
        """Return Megatron's layer, or ours if FP8 is emulated."""
        if self.emulated is None:
            return super().row_parallel_linear()
        return partial(EmulatedRowParallelLinear, emulated=self.emulated)

    def grouped_mlp_modules(self, moe_use_grouped_gemm: bool) -> Any:
        """Return experts that run one by one and use the linear layers above."""
        linear_fc1, linear_fc2 = self.column_parallel_linear(), self.row_parallel_linear()
        return partial(SequentialMLP, submodules=MLPSubmodules(linear_fc1=linear_fc1, linear_fc2=linear_fc2))

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, **_: Any) -> type:
        """Return our norm: without Transformer Engine, Megatron's does not support sequence parallelism."""
        return RMSNorm

    def core_attention(self) -> type:
        """Return ours: without Transformer Engine, Megatron's supports neither context parallelism nor packed rows."""
        return PackedAttention


def block_spec(
    config: TransformerConfig, vp_stage: int | None = None, emulated: Emulation | None = None
) -> TransformerBlockSubmodules:
    """Return the spec of this rank's decoder layers, with experts if the config has any.

    `emulated` is the FP8 to emulate on a CPU without Transformer Engine. Raises EnvironmentProblem on a GPU without
    Transformer Engine.
    """
    if HAVE_TE:
        block = get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=vp_stage)
        if config.num_moe_experts is not None:
            for layer in block.layer_specs:
                layer.submodules.mlp = _with_padding_router(layer.submodules.mlp)
        return block
    if torch.cuda.is_available():
        raise EnvironmentProblem(
            "this machine has a GPU, but Transformer Engine cannot be imported: run "
            f"{install_command('transformer_engine')}, or use NVIDIA's PyTorch image"
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
    # Transformer Engine fuses these norms into the matrix that follows; checkpoints have its names
    fused_norms = {"input_layernorm.": "self_attention.linear_qkv.layer_norm_"}
    mlp_norm: type = RMSNorm
    if config.num_moe_experts is None:
        fused_norms["pre_mlp_layernorm."] = "mlp.linear_fc1.layer_norm_"
        mlp_norm = FoldedRMSNorm
    mlp = get_mlp_module_spec_for_backend(backend, num_experts=config.num_moe_experts, moe_grouped_gemm=False)
    if config.num_moe_experts is not None:
        mlp = _with_padding_router(mlp)
    submodules = TransformerLayerSubmodules(
        input_layernorm=FoldedRMSNorm,
        self_attention=attention,
        self_attn_bda=get_bias_dropout_add,
        pre_mlp_layernorm=mlp_norm,
        mlp=mlp,
        mlp_bda=get_bias_dropout_add,
        sharded_state_dict_keys_map=fused_norms,
    )
    return ModuleSpec(module=TransformerLayer, submodules=submodules)


def _with_padding_router(mlp: Any) -> Any:
    """Return Megatron's builder of an MoE layer with our router."""
    submodules = dataclasses.replace(mlp.keywords["submodules"], router=PaddingRouter)
    return partial(mlp.func, *mlp.args, **(mlp.keywords | {"submodules": submodules}))
