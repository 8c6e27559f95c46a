"""Which ways of storing the optimizer's state work together; needs no torch."""

from acc_megatron.config import Config, OptimizerConfig
from acc_megatron.errors import ConfigError
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.training.optimizers import OPTIMIZERS
from acc_megatron.training.optimizers.storage import is_precision_aware, keeps_master_weights

KEYS = ("moments", "gradients", "master_weights", "offload_fraction")


def check_optimizer(config: Config) -> None:
    """Raise ConfigError for an optimizer that the layout, the precision or Megatron's optimizers do not support."""
    settings, parallel = config.optimizer, config.parallel
    kind = OPTIMIZERS[settings.kind]
    if parallel.distributed_optimizer and not kind.supports_distributed_optimizer:
        supported = " or ".join(repr(name) for name, each in OPTIMIZERS.items() if each.supports_distributed_optimizer)
        raise ConfigError(f"parallel.distributed_optimizer needs optimizer.kind = {supported}, got {settings.kind!r}")
    if not 0 <= settings.offload_fraction <= 1:
        raise ConfigError(f"optimizer.offload_fraction = {settings.offload_fraction} must be from 0 to 1")
    if not is_precision_aware(settings):
        return
    key = next(name for name in KEYS if getattr(settings, name) != getattr(_DEFAULT, name))
    what = f"optimizer.{key} = {getattr(settings, key)!r}"
    if settings.kind != "adamw":
        raise ConfigError(f"{what} needs optimizer.kind = 'adamw', got {settings.kind!r}")
    if not parallel.distributed_optimizer:
        raise ConfigError(f"{what} needs parallel.distributed_optimizer, also on one GPU: set it to true")
    if PRECISIONS[config.train.precision].dtype == "float32":
        raise ConfigError(
            f"{what} needs bfloat16 weights, got train.precision = {config.train.precision!r}: use 'bfloat16', or an "
            "FP8 recipe"
        )
    if config.adapter.rank:
        raise ConfigError(
            f"{what} does not work with adapter.rank = {config.adapter.rank}, whose optimizer state is small: remove it"
        )
    _check_offload(settings)
    _check_fp8(config)


_DEFAULT = OptimizerConfig(learning_rate=0.0, min_learning_rate=0.0)


def _check_offload(settings: OptimizerConfig) -> None:
    for key in ("moments", "master_weights") if settings.offload_fraction else ():
        if getattr(settings, key) != "float32":
            raise ConfigError(
                f"optimizer.offload_fraction = {settings.offload_fraction} does not work with optimizer.{key} = "
                f"{getattr(settings, key)!r}: Megatron's hybrid optimizer stores float32 on GPU and host; set "
                f"optimizer.{key} = 'float32', or optimizer.offload_fraction = 0"
            )


def _check_fp8(config: Config) -> None:
    """With most FP8 recipes Megatron stores the weights that are updated itself, in float32."""
    settings, precision = config.optimizer, config.train.precision
    if settings.master_weights == "remainders" and not keeps_master_weights(config):
        raise ConfigError(
            f"optimizer.master_weights = 'remainders' does not work with train.precision = {precision!r}, for which "
            "Megatron stores float32 weights itself: use 'float32' or 'float16'"
        )
    for key, usable in (("master_weights", "float32"), ("offload_fraction", 0.0)) if config.fp8.param_gather else ():
        if getattr(settings, key) != usable:
            raise ConfigError(
                f"optimizer.{key} = {getattr(settings, key)!r} does not work with fp8.param_gather, whose bfloat16 "
                f"weights do not exist: set optimizer.{key} = {usable!r}, or fp8.param_gather = false"
            )
