"""Whether the model, the layout and the GPUs support `train.precision` and the settings in [fp8]."""

from acc_megatron.config import Config, Fp8Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.fp8.recipe import Fp8Recipe
from acc_megatron.model.precision import PRECISIONS


def check_precision(config: Config, layout: Layout, capability: float | None) -> None:
    """Raise ConfigError for what the precision does not support; `capability` is that of the GPUs, if known."""
    precision, fp8 = config.train.precision, config.fp8
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        if fp8 != Fp8Config():
            names = ", ".join(f"fp8.{key}" for key, value in vars(fp8).items() if value != getattr(Fp8Config(), key))
            raise ConfigError(f"{names}: needs train.precision = 'fp8_...', got {precision!r}")
        return
    if capability is not None and capability < recipe.min_capability:
        raise ConfigError(
            f"train.precision = {precision!r} needs a GPU of compute capability {recipe.min_capability} "
            f"({recipe.hardware}), this machine's has {capability}; use 'bfloat16' or another recipe"
        )
    _check_layers(config, layout)
    recipe.check(config)
    _check_dims(config, layout, recipe)
    if fp8.param_gather and not config.parallel.distributed_optimizer:
        raise ConfigError(
            "fp8.param_gather needs parallel.distributed_optimizer, which shards the parameters: set both"
        )


def _check_layers(config: Config, layout: Layout) -> None:
    """Check the number of layers that stay in bfloat16."""
    fp8, num_layers = config.fp8, config.model.num_hidden_layers
    if fp8.amax_history_steps < 1:
        raise ConfigError(f"fp8.amax_history_steps = {fp8.amax_history_steps} must be at least 1")
    per_stage = num_layers // layout.pipeline
    start, end = fp8.bf16_layers_at_start, fp8.bf16_layers_at_end
    for key, count in (("bf16_layers_at_start", start), ("bf16_layers_at_end", end)):
        if not 0 <= count <= per_stage:
            raise ConfigError(
                f"fp8.{key} = {count} must be from 0 to the number of layers of a pipeline stage, "
                f"model.num_hidden_layers {num_layers} / pp {layout.pipeline} = {per_stage}"
            )
    if start + end >= num_layers:
        raise ConfigError(
            f"fp8.bf16_layers_at_start {start} + fp8.bf16_layers_at_end {end} = {start + end} leaves none of "
            f"model.num_hidden_layers = {num_layers} in FP8: use train.precision = 'bfloat16'"
        )


def _check_dims(config: Config, layout: Layout, recipe: Fp8Recipe) -> None:
    """Check that every dim of a quantised matrix is a multiple of the recipe's alignment."""
    row, shares = config.data.seq_length_tokens, layout.context * layout.tensor
    tokens = f"data.seq_length_tokens {row} / (cp {layout.context} x tp {layout.tensor})"
    dims = FAMILIES[config.model.family].quantised_dims(config.model, config.parallel)
    for what, size in [*dims, (tokens, row // shares)]:
        if size % recipe.alignment_dim:
            raise ConfigError(
                f"train.precision = {config.train.precision!r} needs multiples of {recipe.alignment_dim}: "
                f"{what} = {size} is not a multiple of {recipe.alignment_dim}"
            )
