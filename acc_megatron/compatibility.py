"""What cannot work together, refused by the names of its keys before any process group starts."""

import importlib.util
import shutil

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.layout import Layout, build_layout, check_fit

RECOMPUTE_MODULES = ("core_attn", "layernorm", "moe", "moe_act")


def check_job(config: Config, world: int) -> Layout:
    """The layout of a job of `world` ranks, after every check that needs no torch; raises ConfigError."""
    layout = build_layout(config.parallel, world)
    check_fit(config, layout)
    check_compatible(config, layout, has_gpu=shutil.which("nvidia-smi") is not None)
    return layout


def check_compatible(config: Config, layout: Layout, *, has_gpu: bool) -> None:
    """Raise ConfigError for a combination that Megatron or this machine cannot run."""
    _check_parallel(config, layout)
    _check_memory(config, layout)
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
    if config.memory.offload_layers:
        raise ConfigError("memory.offload_layers needs a GPU: without one activations are in host memory already")
    if config.memory.recompute == "selective" and "moe_act" in config.memory.recompute_modules:
        raise ConfigError("memory.recompute_modules: 'moe_act' needs grouped GEMM, which needs a GPU")
