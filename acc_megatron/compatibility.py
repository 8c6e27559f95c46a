"""What cannot work together, refused by the names of its keys before any process group starts."""

import importlib.util
import shutil
import subprocess
from functools import cache

from acc_megatron.config import Config, Fp8Config
from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.layout import Layout, build_layout, check_fit
from acc_megatron.model.precision import PRECISIONS, Recipe, quantised_dims, shares_gradient_buffer

RECOMPUTE_MODULES = ("core_attn", "layernorm", "moe", "moe_act")


def check_job(config: Config, world: int, *, has_gpu: bool | None = None, capability: float | None = None) -> Layout:
    """The layout of a job of `world` ranks, after every check that needs no torch; raises ConfigError.

    `has_gpu` and the `capability` of its GPUs say where the job will run; None: on this machine.
    """
    layout = build_layout(config.parallel, world)
    check_fit(config, layout)
    if has_gpu is None:
        has_gpu, capability = shutil.which("nvidia-smi") is not None, _gpu_capability()
    check_compatible(config, layout, has_gpu=has_gpu, capability=capability)
    return layout


def check_compatible(config: Config, layout: Layout, *, has_gpu: bool, capability: float | None = None) -> None:
    """Raise ConfigError for a combination that Megatron or this machine cannot run.

    `capability` is that of the GPUs that will run it (9.0 for Hopper), None where nobody knows.
    """
    if config.model.num_experts_per_tok == 1 and config.model.norm_topk_prob:
        raise ConfigError(
            "model.num_experts_per_tok = 1 needs model.norm_topk_prob = false: one probability made to sum to 1 is "
            "always 1, and the router would learn nothing"
        )
    _check_parallel(config, layout)
    _check_memory(config, layout)
    _check_precision(config, layout, capability)
    _check_resilience(config)
    if not has_gpu:
        _check_cpu(config)


def _check_parallel(config: Config, layout: Layout) -> None:
    p = config.parallel
    if p.virtual_pipeline > 1 and layout.pipeline == 1:
        raise ConfigError(f"parallel.virtual_pipeline = {p.virtual_pipeline} needs parallel.pipeline > 1")
    microbatches = config.train.global_batch_rows // layout.data
    if p.virtual_pipeline > 1 and microbatches % layout.pipeline:
        raise ConfigError(
            f"train.global_batch_rows = {config.train.global_batch_rows} over {layout.data} data-parallel ranks gives "
            f"{microbatches} microbatches, which parallel.pipeline = {layout.pipeline} does not divide; "
            "parallel.virtual_pipeline needs that"
        )
    if p.overlap_param_gather and not (p.distributed_optimizer and p.overlap_grad_reduce):
        raise ConfigError(
            "parallel.overlap_param_gather needs parallel.distributed_optimizer and parallel.overlap_grad_reduce"
        )
    if p.distributed_optimizer and config.optimizer.kind == "sgd":
        raise ConfigError("parallel.distributed_optimizer works with optimizer.kind = 'adamw', not with 'sgd'")
    is_hierarchical = p.context_communication == "a2a+p2p"
    if is_hierarchical != bool(p.hierarchical_context):
        raise ConfigError("parallel.context_communication = 'a2a+p2p' and parallel.hierarchical_context go together")
    if is_hierarchical:
        product = 1
        for size in p.hierarchical_context:
            product *= size
        if product != layout.context:
            sizes = " x ".join(map(str, p.hierarchical_context))
            raise ConfigError(
                f"parallel.hierarchical_context {sizes} = {product} is not parallel.context = {layout.context}"
            )
    heads = config.model.num_key_value_heads // layout.tensor
    if p.context_communication == "a2a" and heads % layout.context:
        raise ConfigError(
            f"parallel.context_communication = 'a2a' splits heads: num_key_value_heads "
            f"{config.model.num_key_value_heads} / tp {layout.tensor} = {heads} does not divide by cp {layout.context}"
        )


def _check_memory(config: Config, layout: Layout) -> None:
    memory = config.memory
    unknown = [name for name in memory.recompute_modules if name not in RECOMPUTE_MODULES]
    if unknown:
        raise ConfigError(f"memory.recompute_modules: {unknown[0]!r} is unknown; known: {', '.join(RECOMPUTE_MODULES)}")
    if not memory.offload_layers:
        return
    if memory.recompute != "none":
        raise ConfigError(f"memory.offload_layers does not work with memory.recompute = {memory.recompute!r}")
    if layout.pipeline > 1:
        raise ConfigError(f"memory.offload_layers does not work with parallel.pipeline = {layout.pipeline}")
    if not 0 < memory.offload_layers < config.model.num_hidden_layers:
        raise ConfigError(
            f"memory.offload_layers = {memory.offload_layers} must be below num_hidden_layers = "
            f"{config.model.num_hidden_layers}"
        )


def _check_precision(config: Config, layout: Layout, capability: float | None) -> None:
    precision, fp8 = config.train.precision, config.fp8
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        if fp8 != Fp8Config():
            names = ", ".join(f"fp8.{key}" for key, value in vars(fp8).items() if value != getattr(Fp8Config(), key))
            raise ConfigError(f"{names} needs train.precision = 'fp8_...', which is {precision!r}")
        return
    if capability is not None and capability < recipe.capability:
        raise ConfigError(
            f"train.precision = {precision!r} needs a GPU of compute capability {recipe.capability} "
            f"({recipe.hardware}), this machine's has {capability}; use 'bfloat16' or another recipe"
        )
    _check_fp8_layers(config, layout)
    _check_fp8_shapes(config, layout, recipe)
    if fp8.param_gather and not config.parallel.distributed_optimizer:
        raise ConfigError("fp8.param_gather gathers what parallel.distributed_optimizer shards: set both or neither")
    if shares_gradient_buffer(precision, fp8) and config.parallel.overlap_param_gather:
        raise ConfigError(
            "fp8.param_gather with train.precision = 'fp8_mxfp8' gathers through the gradient buffer, which "
            "parallel.overlap_param_gather would still be filling: set one of the two"
        )


def _check_fp8_layers(config: Config, layout: Layout) -> None:
    precision, fp8, num_layers = config.train.precision, config.fp8, config.model.num_hidden_layers
    if fp8.amax_history_steps < 1:
        raise ConfigError(f"fp8.amax_history_steps = {fp8.amax_history_steps} must be at least 1")
    counts = {"bf16_layers_at_start": fp8.bf16_layers_at_start, "bf16_layers_at_end": fp8.bf16_layers_at_end}
    per_stage = num_layers // layout.pipeline
    for key, count in counts.items():
        if not 0 <= count <= per_stage:
            raise ConfigError(
                f"fp8.{key} = {count} must be from 0 to model.num_hidden_layers {num_layers} / pp {layout.pipeline} "
                f"= {per_stage}, the layers of a stage"
            )
    start, end = counts.values()
    if start + end >= num_layers:
        raise ConfigError(
            f"fp8.bf16_layers_at_start {start} + fp8.bf16_layers_at_end {end} = {start + end} leaves none of "
            f"model.num_hidden_layers = {num_layers} in FP8: use train.precision = 'bfloat16'"
        )
    if precision == "fp8_delayed":
        for key in (key for key, count in counts.items() if count):
            raise ConfigError(f"fp8.{key} does not work with train.precision = 'fp8_delayed': it scales all layers")
        recomputed = {"layernorm", "moe_act"} & set(config.memory.recompute_modules)
        if config.memory.recompute == "selective" and recomputed:
            raise ConfigError(
                f"memory.recompute_modules: {min(recomputed)!r} does not work with train.precision = 'fp8_delayed'"
            )


def _check_fp8_shapes(config: Config, layout: Layout, recipe: Recipe) -> None:
    rows, tokens = config.data.seq_length_tokens, layout.context * layout.tensor
    row = f"data.seq_length_tokens {rows} / (cp {layout.context} x tp {layout.tensor})"
    for what, size in [*quantised_dims(config), (row, rows // tokens)]:
        if size % recipe.alignment_dim:
            raise ConfigError(
                f"train.precision = {config.train.precision!r} needs multiples of {recipe.alignment_dim}: "
                f"{what} = {size} is none"
            )


@cache
def _gpu_capability() -> float | None:
    """The lowest compute capability of this machine's GPUs, as nvidia-smi tells it; None where it does not."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(float(line) for line in told.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _check_resilience(config: Config) -> None:
    """Rules that could never fire or always would, and trackers that are not installed."""
    r = config.resilience
    if r.spike_sigmas < 0 or r.spike_window_steps < 2 or r.spike_limit < 1 or r.spike_limit_steps < 1:
        raise ConfigError(
            f"resilience: spike_sigmas = {r.spike_sigmas} must not be negative, spike_window_steps = "
            f"{r.spike_window_steps} at least 2, spike_limit = {r.spike_limit} and spike_limit_steps = "
            f"{r.spike_limit_steps} at least 1"
        )
    hang, process = r.hang_timeout_seconds, config.train.process_timeout_seconds
    if hang is not None and not 0 < hang < process:
        raise ConfigError(
            f"resilience.hang_timeout_seconds = {hang} must be positive and below train.process_timeout_seconds = "
            f"{process}, which ends a collective without naming anyone"
        )
    for name in ("wandb", "mlflow"):
        if getattr(config.observe, name) and importlib.util.find_spec(name) is None:
            raise EnvironmentProblem(f"observe.{name} needs the package: pip install 'acc-megatron[{name}]'")


def _check_cpu(config: Config) -> None:
    """What exists on GPU alone."""
    if config.loss.implementation == "triton":
        raise ConfigError("loss.implementation = 'triton' needs a GPU; use 'auto' or 'torch'")
    if config.moe.dispatcher in ("deepep", "hybridep"):
        raise ConfigError(f"moe.dispatcher = {config.moe.dispatcher!r} needs a GPU; use 'alltoall' or 'allgather'")
    if config.fp8.param_gather:
        raise ConfigError("fp8.param_gather needs a GPU: on CPU FP8 is emulated over bfloat16 parameters")
    if config.memory.offload_layers:
        raise ConfigError("memory.offload_layers needs a GPU: without one activations are in host memory already")
    if config.memory.recompute == "selective" and "moe_act" in config.memory.recompute_modules:
        raise ConfigError("memory.recompute_modules: 'moe_act' needs grouped GEMM, which needs a GPU")
