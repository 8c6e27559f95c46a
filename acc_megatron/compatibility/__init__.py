"""Checks of settings that cannot work together, before any process group starts; none needs torch."""

import shutil
import subprocess
from functools import cache

from acc_megatron.compatibility.adapter import check_adapter
from acc_megatron.compatibility.deterministic import check_deterministic, check_variables
from acc_megatron.compatibility.engine import check_engine, installed_engine
from acc_megatron.compatibility.fp8 import check_precision
from acc_megatron.compatibility.held_out import check_held_out
from acc_megatron.compatibility.last_layer import check_last_layer
from acc_megatron.compatibility.layout import check_divides, check_parallel
from acc_megatron.compatibility.memory import check_memory
from acc_megatron.compatibility.optimizer import check_optimizer
from acc_megatron.config import Config, MoEConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout, build_layout
from acc_megatron.model.families import FAMILIES
from acc_megatron.optional import is_installed, missing_package
from acc_megatron.training.schedules import SCHEDULES


def check_job(config: Config, world: int, *, has_gpu: bool | None = None, capability: float | None = None) -> Layout:
    """Return the layout of a job of `world` ranks if all checks pass; raises ConfigError otherwise.

    `has_gpu` and `capability` (9.0 for Hopper) describe the machines of the job; None: this machine.
    """
    layout = build_layout(config.parallel, world)
    check_divides(config, layout)
    if has_gpu is None:
        check_variables(config)
        has_gpu, capability = shutil.which("nvidia-smi") is not None, _gpu_capability()
        if has_gpu and (engine := installed_engine()):
            check_engine(config, layout, engine)
    check_compatible(config, layout, has_gpu=has_gpu, capability=capability)
    return layout


def check_compatible(config: Config, layout: Layout, *, has_gpu: bool, capability: float | None = None) -> None:
    """Raise ConfigError for a combination of settings that Megatron or the machine cannot run.

    `capability` is the compute capability of the job's GPUs (9.0 for Hopper), None if it is unknown.
    """
    FAMILIES[config.model.family].check(config.model)
    if not config.model.num_experts and config.moe != MoEConfig():
        raise ConfigError(f"[moe] has no effect: model.family = {config.model.family!r} has no experts; remove it")
    _check_schedule(config)
    check_optimizer(config)
    check_parallel(config, layout)
    check_memory(config)
    check_last_layer(config, layout)
    check_precision(config, layout, capability)
    check_deterministic(config)
    check_held_out(config)
    check_adapter(config, layout)
    _check_resilience(config)
    _check_trackers(config)
    _check_profile(config, layout)
    if not has_gpu:
        _check_cpu(config)


def _check_schedule(config: Config) -> None:
    """Refuse an unknown schedule, and shares of the steps outside of their range."""
    settings = config.optimizer
    SCHEDULES[settings.schedule]  # raises if it is unknown
    if not 0 <= settings.warmup_fraction <= 1:
        raise ConfigError(f"optimizer.warmup_fraction = {settings.warmup_fraction} must be from 0 to 1")
    if not 0 < settings.decay_fraction <= 1:
        raise ConfigError(
            f"optimizer.decay_fraction = {settings.decay_fraction} must be greater than 0 and at most 1; "
            "optimizer.schedule = 'constant' never falls"
        )


def _check_resilience(config: Config) -> None:
    """Refuse rules that could never apply or would always apply."""
    r = config.resilience
    if r.spike_sigmas < 0 or r.spike_window_steps < 2 or r.spike_limit < 1 or r.spike_limit_steps < 1:
        raise ConfigError(
            f"resilience: spike_sigmas = {r.spike_sigmas} must be at least 0, spike_window_steps = "
            f"{r.spike_window_steps} at least 2, spike_limit = {r.spike_limit} and spike_limit_steps = "
            f"{r.spike_limit_steps} at least 1"
        )
    hang, process = r.hang_timeout_seconds, config.train.process_timeout_seconds
    if hang is not None and not 0 < hang < process:
        raise ConfigError(
            f"resilience.hang_timeout_seconds = {hang} must be greater than 0 and less than "
            f"train.process_timeout_seconds = {process}, which ends a collective without saying which rank hangs"
        )


def _check_trackers(config: Config) -> None:
    for name in ("wandb", "mlflow"):
        if getattr(config.observe, name) and not is_installed(name):
            raise missing_package(name, f"observe.{name}")


def _check_profile(config: Config, layout: Layout) -> None:
    """Refuse a profile that would record nothing."""
    profile = config.profile
    if not profile.steps:
        for name in ("nvtx", "memory"):
            if getattr(profile, name):
                raise ConfigError(f"profile.{name} needs profile.steps, the steps to record, such as [10, 11]")
        return
    if not (profile.trace or profile.nvtx or profile.memory):
        raise ConfigError("profile.steps records nothing: set profile.trace, profile.nvtx or profile.memory")
    if min(profile.steps) < 1:
        raise ConfigError(f"profile.steps = {profile.steps}: steps are counted from 1")
    if not profile.ranks or not all(0 <= rank < layout.world for rank in profile.ranks):
        raise ConfigError(f"profile.ranks = {profile.ranks}: give ranks from 0 to {layout.world - 1}")


def _check_cpu(config: Config) -> None:
    """Refuse what exists on GPU only."""
    if config.loss.implementation == "triton":
        raise ConfigError("loss.implementation = 'triton' needs a GPU; use 'auto' or 'torch'")
    if config.moe.dispatcher in ("deepep", "hybridep"):
        raise ConfigError(f"moe.dispatcher = {config.moe.dispatcher!r} needs a GPU; use 'alltoall' or 'allgather'")
    if config.fp8.param_gather:
        raise ConfigError("fp8.param_gather needs a GPU; on CPU, FP8 is emulated with bfloat16 parameters")
    for name in ("nvtx", "memory"):
        if getattr(config.profile, name):
            raise ConfigError(f"profile.{name} needs a GPU; profile.trace works without one")
    if config.memory.offload_modules:
        raise ConfigError("memory.offload_modules needs a GPU; without one, activations are in host memory already")
    if config.memory.recompute == "selective" and "moe_act" in config.memory.recompute_modules:
        raise ConfigError(
            "memory.recompute_modules: 'moe_act' needs grouped GEMM, which needs a GPU; use ['layernorm'] on CPU"
        )


@cache
def _gpu_capability() -> float | None:
    """Return the lowest compute capability of this machine's GPUs, from nvidia-smi; None if that fails."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(float(line) for line in output.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
