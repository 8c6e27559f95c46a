"""Which modules can be recomputed or offloaded, by the conditions of megatron-core 0.19.2; needs no torch."""

from collections.abc import Mapping

from acc_megatron.config import Config, MemoryConfig
from acc_megatron.errors import ConfigError

# every module of megatron-core, and for those that no model here has, why
RECOMPUTE_MODULES = ("core_attn", "layernorm", "moe", "moe_act")
DENSE_RECOMPUTE_MODULES = ("core_attn", "layernorm", "mlp")
ABSENT_RECOMPUTE_MODULES = {
    "mla_up_proj": "needs multi-latent attention",
    "gdn_norm_out": "needs gated delta net layers",
    "shared_experts": "needs shared experts",
    "mlp": "needs layers with a dense MLP",
    "moe": "needs layers with experts",
    "moe_act": "needs layers with experts",
}
OFFLOAD_MODULES = ("qkv_linear", "core_attn", "attn_proj", "mlp_norm", "expert_fc1", "moe_act")
DENSE_OFFLOAD_MODULES = ("qkv_linear", "core_attn", "attn_proj")
ABSENT_OFFLOAD_MODULES = {
    "attn_norm": "does nothing, because Transformer Engine fuses this norm into the matrix after it; use 'qkv_linear'",
    "mlp_norm": "does nothing without experts, because Transformer Engine fuses this norm into the matrix after it",
    "fused_group_mlp": "needs Transformer Engine's op fuser, which this package does not use; use 'expert_fc1'",
    "expert_fc1": "needs layers with experts",
    "moe_act": "needs layers with experts",
}
INSIDE_MOE = ("expert_fc1", "moe_act")


def check_memory(config: Config) -> None:
    """Raise ConfigError for settings in [memory] that this model or this layout does not support."""
    memory = config.memory
    is_moe = config.model.num_experts > 0
    # the default list is for models with experts and has no effect without selective recompute
    if memory.recompute == "selective" or memory.recompute_modules != MemoryConfig().recompute_modules:
        known = RECOMPUTE_MODULES if is_moe else DENSE_RECOMPUTE_MODULES
        _check_names("recompute_modules", memory.recompute_modules, known, ABSENT_RECOMPUTE_MODULES, config)
    uses_activation = memory.recompute == "selective" and "moe_act" in memory.recompute_modules
    if (uses_activation or set(INSIDE_MOE) & set(memory.offload_modules)) and not config.moe.grouped_gemm:
        key = "recompute_modules" if uses_activation else "offload_modules"
        raise ConfigError(f"memory.{key}: the modules of the experts need moe.grouped_gemm = true")
    if memory.offload_modules:
        _check_offload_modules(config)


def _check_names(key: str, names: list[str], known: tuple[str, ...], absent: Mapping[str, str], config: Config) -> None:
    for name in names:
        if name in known:
            continue
        why = f"{name!r} {absent[name]}" if name in absent else f"unknown module {name!r}"
        raise ConfigError(
            f"memory.{key}: {why}; known modules: {', '.join(known)} (model.family = {config.model.family!r})"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"memory.{key} = {names} names a module twice")


def _check_offload_modules(config: Config) -> None:
    memory, parallel = config.memory, config.parallel
    if config.model.num_hidden_layers <= parallel.pipeline * parallel.virtual_pipeline:
        # the last layer of the chunk whose backward pass is first stays, and Megatron takes it for the end of the chunk
        raise ConfigError(
            f"memory.offload_modules needs two layers in a model chunk: model.num_hidden_layers = "
            f"{config.model.num_hidden_layers} over parallel.pipeline = {parallel.pipeline} x "
            f"parallel.virtual_pipeline = {parallel.virtual_pipeline} leaves one, for which megatron-core 0.19.2 fails "
            "in the second step: reduce one of them, or remove memory.offload_modules"
        )
    known = OFFLOAD_MODULES if config.model.num_experts else DENSE_OFFLOAD_MODULES
    _check_names("offload_modules", memory.offload_modules, known, ABSENT_OFFLOAD_MODULES, config)
    if memory.recompute == "full":
        raise ConfigError(
            "memory.offload_modules has no effect with memory.recompute = 'full', which saves no activations of modules"
            ": use 'selective' or 'none', or remove it"
        )
    if "attn_proj" in memory.offload_modules and "core_attn" not in memory.offload_modules:
        raise ConfigError(
            "memory.offload_modules: 'attn_proj' needs 'core_attn' too, whose backward pass needs the same tensor"
        )
    inside = [name for name in memory.offload_modules if name in INSIDE_MOE]
    if inside and memory.recompute == "selective" and "moe" in memory.recompute_modules:
        raise ConfigError(
            f"memory.offload_modules: {inside[0]!r} does not work with 'moe' in memory.recompute_modules, which "
            "recomputes the whole expert layer: remove one of them"
        )
