"""Building Megatron's optimizer for a run, and its update with a gradient norm that is already known."""

from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from acc_megatron.config import Config, OptimizerConfig
from acc_megatron.model.precision import optimizer_fields
from acc_megatron.model.transformer_config import DTYPES
from acc_megatron.training.optimizers import OPTIMIZERS
from acc_megatron.training.optimizers.storage import is_precision_aware, keeps_master_weights, storage_fields


def build_optimizer(config: Config, chunks: list[torch.nn.Module]) -> MegatronOptimizer:
    """Build Megatron's optimizer for the model chunks; norms and one-dimensional parameters get no weight decay."""
    settings = config.optimizer
    kind = OPTIMIZERS[settings.kind]
    if not torch.cuda.is_available():
        kind.prepare_cpu(is_narrow=is_precision_aware(settings))
    optimizer = get_megatron_optimizer(_megatron_config(config), chunks, use_gloo_process_groups=False)
    kind.finish(optimizer, settings)
    apply_settings(optimizer, settings)
    return optimizer


def _megatron_config(config: Config) -> MegatronOptimizerConfig:
    settings, dtype = config.optimizer, DTYPES[config.train.precision]
    fields: dict[str, Any] = {
        "lr": settings.learning_rate,
        "min_lr": settings.min_learning_rate,
        "weight_decay": settings.weight_decay,
        "clip_grad": settings.clip_grad_norm,
        "use_distributed_optimizer": config.parallel.distributed_optimizer,
        "params_dtype": dtype,
        "bf16": dtype is torch.bfloat16,
        **OPTIMIZERS[settings.kind].megatron_fields(settings),
        **optimizer_fields(config.train.precision, config.fp8),
    }
    storage = storage_fields(settings)
    if torch.cuda.is_available() or not storage:
        return MegatronOptimizerConfig(**fields, **storage)
    # without Transformer Engine Megatron refuses these fields when the config is made; on CPU NarrowAdamW has its part
    made = MegatronOptimizerConfig(**fields)
    for name, value in storage.items():
        setattr(made, name, value)
    # host memory holds everything here, and the arithmetic of the offloaded optimizer is that of float32
    made.optimizer_cpu_offload = False
    made.use_precision_aware_optimizer_no_fp8_or_ds_fp8 = keeps_master_weights(config)
    return made


def apply_settings(optimizer: MegatronOptimizer, settings: OptimizerConfig) -> None:
    """Give every parameter group the current settings; a group of norms or other vectors gets no weight decay.

    Megatron does this in its own scheduler, which this package does not use. A checkpoint contains no settings of
    groups, so they hold after a resume too.
    """
    for group in optimizer.param_groups:
        group["max_lr"], group["min_lr"] = settings.learning_rate, settings.min_learning_rate
        group["weight_decay"] = settings.weight_decay * group["wd_mult"]
        if "betas" in group:
            group["betas"], group["eps"] = (settings.adam_beta1, settings.adam_beta2), settings.adam_eps


def set_learning_rate(optimizer: MegatronOptimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_and_update(optimizer: MegatronOptimizer, grad_norm: float) -> bool:
    """Clip the gradients by a known global norm and update the weights; returns whether they were updated.

    This is the second half of Megatron's `step`. It is separate from the first half so that the ranks can agree not
    to update once they know the norm.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        parameters = part.get_parameters()
        if part.config.clip_grad > 0.0 and parameters:
            decoupled = part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
            clip_grad_by_total_norm_fp32(parameters, part.config.clip_grad, grad_norm, use_decoupled_grad=decoupled)
    return bool(optimizer.step_with_ready_grads())
