"""How the optimizer stores its state: bytes of a parameter, and Megatron's fields; does not import torch on import.

Megatron's precision-aware optimizer leaves the weights that are updated to Transformer Engine's FusedAdam, except with
FP8 recipes other than the delayed one.
"""

from typing import Any

from acc_megatron.config import Config, OptimizerConfig
from acc_megatron.model.precision import PRECISIONS

MOMENT_BYTES = {"float32": 8, "bfloat16": 4, "fp8": 3}  # both moments
MASTER_BYTES = {"float32": 4, "remainders": 2, "float16": 2}
GRADIENT_BYTES = {"float32": 4, "bfloat16": 2}
# of a parameter whose state is in host memory: float32 weight, its gradient and both moments
HOST_BYTES = 16


def is_precision_aware(settings: OptimizerConfig) -> bool:
    """Whether Megatron's precision-aware optimizer is needed; it needs the distributed optimizer and AdamW."""
    stored = (settings.moments, settings.gradients, settings.master_weights)
    return stored != ("float32", "float32", "float32") or settings.offload_fraction > 0


def keeps_master_weights(config: Config) -> bool:
    """Whether the optimizer itself stores the weights that it updates, rather than Megatron as float32 copies."""
    recipe = PRECISIONS[config.train.precision].recipe
    is_delayed = recipe is None or recipe.megatron_name == "delayed"
    settings = config.optimizer
    is_narrow = settings.master_weights == "float16" or settings.offload_fraction > 0
    return is_precision_aware(settings) and (is_delayed or is_narrow)


def storage_fields(settings: OptimizerConfig) -> dict[str, Any]:
    """Return the fields of Megatron's OptimizerConfig; empty if everything is float32 and on the GPU."""
    if not is_precision_aware(settings):
        return {}
    import torch

    first = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.uint8}
    is_offloaded = settings.offload_fraction > 0
    return {
        "use_precision_aware_optimizer": True,
        "exp_avg_dtype": first[settings.moments],
        "exp_avg_sq_dtype": torch.float32 if settings.moments == "float32" else torch.bfloat16,
        "main_grads_dtype": getattr(torch, settings.gradients),
        "main_params_dtype": torch.float16 if settings.master_weights == "float16" else torch.float32,
        "store_param_remainders": settings.master_weights == "remainders",
        "optimizer_cpu_offload": is_offloaded,
        "optimizer_offload_fraction": settings.offload_fraction,
        "overlap_cpu_optimizer_d2h_h2d": is_offloaded,
    }
