"""`acc-megatron recipe`: a training recipe for a Hugging Face folder, laid out by the planner."""

import dataclasses
import textwrap
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.checkpoint.huggingface_config import read_model_config
from acc_megatron.common.toml_text import write_toml
from acc_megatron.config import (
    Config,
    DataConfig,
    ModelConfig,
    MoEConfig,
    OptimizerConfig,
    ParallelConfig,
    RopeScaling,
    TrainConfig,
)
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.gpu_specs import MACHINES, Machine
from acc_megatron.model.families.rope_scaling import trained_positions
from acc_megatron.plan.planner import Plan
from acc_megatron.plan.search import choose, search
from acc_megatron.plan.speeds import assumed_speeds
from acc_megatron.plan.switches import describe_switches
from acc_megatron.plan.workload import read_workload


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a recipe is for."""

    folder: Path  # of the Hugging Face model
    num_gpus: int
    seq_length_tokens: int
    machine: Machine
    global_batch_rows: int = 16
    yarn: bool = False  # extend the window to seq_length_tokens


def make_recipe(request: Request) -> str:
    """Return the recipe as TOML, with the plan that it follows as a comment.

    Raises CheckpointError for a model that is not supported, ConfigError for a row beyond the model's window or if no
    layout fits.
    """
    model = _in_window(read_model_config(request.folder), request)
    config = _config(model, request)
    plans = search(config, request.num_gpus, assumed_speeds(request.machine), read_workload(config))
    plan = _choose(plans, request)
    return f"{_head(plan, request)}{write_toml(plan.config)}\n"


def _in_window(model: ModelConfig, request: Request) -> ModelConfig:
    """Extend the window of a model with YaRN if that is asked for; raises ConfigError if a row exceeds it."""
    tokens = request.seq_length_tokens
    if tokens <= model.window_tokens:
        return model
    if not request.yarn or model.rope_scaling is not None:
        advice = "config.json already scales it" if model.rope_scaling else "--yarn extends it"
        raise ConfigError(f"--seq-length {tokens} exceeds the window of {model.window_tokens} tokens: {advice}")
    trained = trained_positions(model.max_position_embeddings)
    scaling = RopeScaling(factor=tokens / trained, original_max_position_embeddings=trained)
    return dataclasses.replace(model, rope_scaling=scaling)


def _config(model: ModelConfig, request: Request) -> Config:
    """Return the settings that do not depend on the layout: the published hyperparameters of ACC."""
    name = request.folder.resolve().name.lower().replace(".", "_")
    return Config(
        name=f"{name}_{request.seq_length_tokens // 1024}k",
        model=model,
        data=DataConfig(path="data/acc", seq_length_tokens=request.seq_length_tokens),
        parallel=ParallelConfig(distributed_optimizer=True),
        moe=MoEConfig(load_balancing="aux_loss") if model.num_experts else MoEConfig(),
        optimizer=OptimizerConfig(learning_rate=1e-5, min_learning_rate=1e-6),
        train=TrainConfig(
            run_dir=f"runs/{name}",
            init_from=f"checkpoints/{name}",
            global_batch_rows=request.global_batch_rows,
            epochs=4,
            precision="bfloat16",
            save_every_steps=100,
            process_timeout_seconds=1800,
        ),
    )


def _choose(plans: list[Plan], request: Request) -> Plan:
    """Return the fastest plan that leaves some memory free, otherwise the fastest that fits."""
    chosen = choose(plan for plan in plans if plan.fits)
    if chosen is not None:
        return chosen
    least = plans[0]
    memory = max((stage.memory for stage in least.stages), key=lambda memory: memory.total)
    state = memory.weights + memory.gradients + memory.optimizer
    raise ConfigError(
        f"no layout of {request.num_gpus} {request.machine.name} fits: {least.layout} with "
        f"{describe_switches(least.config)} needs least, {memory.total / 1e9:.0f} of "
        f"{request.machine.memory_bytes / 1e9:.0f} GB, of which weights, gradients and optimizer are "
        f"{state / 1e9:.0f} GB; use more GPUs or a shorter --seq-length"
    )


def _head(plan: Plan, request: Request) -> str:
    """Return the comment: the plan, and the commands that use the recipe."""
    source, target = request.folder, plan.config.train.init_from
    kind = "" if request.machine is MACHINES["h100"] else f" --machine {request.machine.name.split()[0].lower()}"
    yarn = " --yarn" if request.yarn else ""
    about = textwrap.fill(
        f"{plan.layout}, {describe_switches(plan.config)}: planned for {request.num_gpus} {request.machine.name}, "
        f"{plan.peak_bytes / 1e9:.0f} GB on the fullest GPU and {plan.time.total:.1f} s a step; not confirmed on a GPU."
        " Hyperparameters are those published for ACC. Written by",
        118,
        initial_indent="# ",
        subsequent_indent="# ",
    )
    return f"""\
{about}
#   acc-megatron recipe {source} --gpus {request.num_gpus} --seq-length {request.seq_length_tokens}{yarn}{kind}
# Before training: acc-megatron import {source} --out {target}
"""
