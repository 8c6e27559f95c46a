"""The settings that trade precision, time or host memory for device memory, in the order of a search."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from acc_megatron.compatibility import check_compatible
from acc_megatron.config import Config, MemoryConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.plan.speeds import Speeds

# ways to store the optimizer's state, the most precise and fastest first; each is added to the recipe's own settings
STORAGE: tuple[dict[str, Any], ...] = (
    {},
    {"master_weights": "remainders"},
    {"moments": "bfloat16", "master_weights": "remainders"},
    {"moments": "bfloat16", "master_weights": "remainders", "gradients": "bfloat16"},
    {"moments": "fp8", "master_weights": "remainders", "gradients": "bfloat16"},
    {"moments": "float32", "master_weights": "float32", "gradients": "bfloat16", "offload_fraction": 0.5},
    {"moments": "float32", "master_weights": "float32", "gradients": "bfloat16", "offload_fraction": 1.0},
)
OFFLOADED = ["qkv_linear", "core_attn", "attn_proj", "mlp_norm", "expert_fc1", "moe_act"]
RECOMPUTE = (
    MemoryConfig(recompute="none"),
    MemoryConfig(recompute="selective", recompute_modules=["layernorm", "moe_act"]),
    MemoryConfig(recompute="selective", recompute_modules=["layernorm", "moe_act"], offload_modules=OFFLOADED[:5]),
    MemoryConfig(recompute="selective", recompute_modules=["layernorm", "moe"]),
    MemoryConfig(recompute="selective", recompute_modules=["layernorm", "moe"], offload_modules=OFFLOADED[:4]),
    MemoryConfig(recompute="full"),
)
# the same for a model without experts
DENSE_RECOMPUTE = (
    MemoryConfig(recompute="none"),
    MemoryConfig(recompute="selective", recompute_modules=["mlp"]),
    MemoryConfig(recompute="selective", recompute_modules=["mlp"], offload_modules=OFFLOADED[:3]),
    MemoryConfig(recompute="full"),
)


def storages(config: Config) -> Iterator[Config]:
    """Yield the recipe, then the recipe with each narrower way to store the optimizer's state."""
    for changes in STORAGE:
        settings = dataclasses.replace(config.optimizer, **changes)
        parallel = config.parallel
        if changes and config.optimizer.kind == "adamw":
            parallel = dataclasses.replace(parallel, distributed_optimizer=True)
        yield dataclasses.replace(config, optimizer=settings, parallel=parallel)


def usable(config: Config, layout: Layout, speeds: Speeds) -> bool:
    """Whether training accepts these settings on the machine of `speeds`."""
    try:
        check_compatible(config, layout, has_gpu=speeds.on_gpu, capability=speeds.machine.capability)
    except ConfigError:
        return False
    return True


def combinations(config: Config) -> list[list[Config]]:
    """For each way to recompute and offload activations the ways to store the optimizer's state, each once."""
    found = []
    for memory in RECOMPUTE if config.model.num_experts else DENSE_RECOMPUTE:
        stored = list(storages(dataclasses.replace(config, memory=memory)))
        found.append([item for number, item in enumerate(stored) if item not in stored[:number]])
    return found


def describe_recompute(config: Config) -> str:
    """The recompute settings in words."""
    memory = config.memory
    return f"selective: {', '.join(memory.recompute_modules)}" if memory.recompute == "selective" else memory.recompute


def describe_storage(config: Config) -> str:
    """Everything that is offloaded or not stored in float32, in words; empty if there is nothing."""
    memory, optimizer = config.memory, config.optimizer
    words = []
    if memory.offload_modules:
        words.append(f"offload {', '.join(memory.offload_modules)}")
    for key in ("moments", "gradients", "master_weights"):
        if getattr(optimizer, key) != "float32":
            words.append(f"{key} {getattr(optimizer, key)}")
    if optimizer.offload_fraction:
        words.append(f"{optimizer.offload_fraction:.0%} of the optimizer offloaded")
    return "; ".join(words)


def describe_switches(config: Config) -> str:
    """Recompute and storage in words."""
    storage = describe_storage(config)
    return f"recompute {describe_recompute(config)}{'; ' if storage else ''}{storage}"
