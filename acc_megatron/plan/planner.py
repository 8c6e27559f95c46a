"""A plan: what a run of this config needs on so many GPUs, and what a step of it takes."""

import math
from dataclasses import dataclass
from typing import Any

from acc_megatron.compatibility import check_job
from acc_megatron.config import Config
from acc_megatron.layout import Layout
from acc_megatron.machines import Machine
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.plan.communication import Collective, collectives
from acc_megatron.plan.efficiency import FIT_SHARE
from acc_megatron.plan.memory import StageMemory, stage_memory
from acc_megatron.plan.parameters import Parameters, model_parameters, stage_parameters
from acc_megatron.plan.shapes import rank_shapes
from acc_megatron.plan.step_time import StepTime, model_flops_per_step, step_time
from acc_megatron.plan.workload import Workload

# tokens of a rank's experts over the mean: a router that is trained with a balancing loss is not even
EXPERT_LOAD = 1.2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A rank of one pipeline stage."""

    parameters: Parameters
    memory: StageMemory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs and takes."""

    config: Config
    layout: Layout
    machine: Machine
    workload: Workload
    stages: tuple[Stage, ...]
    collectives: tuple[Collective, ...]
    expert_load: float
    time: StepTime

    @property
    def peak_bytes(self) -> float:
        """Of the stage that needs most."""
        return max(stage.memory.total for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether the fullest stage leaves the device its margin."""
        return self.peak_bytes <= FIT_SHARE * self.machine.memory_bytes

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Tokens of whole rows, as training logs them."""
        tokens = self.config.train.global_batch_rows * self.workload.row_tokens
        return tokens / self.time.total / self.layout.world

    @property
    def flops_per_step(self) -> float:
        """Model FLOPs of a step on all GPUs."""
        return model_flops_per_step(self.config, self.workload)

    @property
    def flops_per_second_per_gpu(self) -> float:
        """Model FLOPs a second of one GPU."""
        return self.flops_per_step / self.time.total / self.layout.world

    @property
    def run_seconds(self) -> float:
        """Of all steps, without checkpoints, restarts and start-up."""
        return self.workload.num_steps * self.time.total

    @property
    def checkpoint_bytes(self) -> float:
        """Weights, moments, and float32 weights where the optimizer has its own."""
        precision = PRECISIONS[self.config.train.precision]
        each = 4 if precision.dtype == "float32" else 2
        each += 8 if self.config.optimizer.kind == "adamw" else 0
        if precision.dtype == "bfloat16" or self.config.parallel.distributed_optimizer:
            each += 4
        return each * model_parameters(self.config.model)


def smallest_world(config: Config) -> int:
    """The fewest ranks that the config's own layout can run on."""
    p = config.parallel
    return p.pipeline * math.lcm(p.tensor * p.context, p.expert_tensor * p.expert)


def check_plan(config: Config, num_gpus: int, machine: Machine) -> Layout:
    """The layout, after every check that training itself makes there; raises ConfigError."""
    return check_job(config, num_gpus, has_gpu=True, capability=machine.capability)


def make_plan(
    config: Config,
    layout: Layout,
    machine: Machine,
    workload: Workload,
    parameters: list[Parameters] | None = None,
    *,
    expert_load: float = EXPERT_LOAD,
) -> Plan:
    """Plan a run on GPUs; `parameters` of each stage come from the real model, or from the formula without it.

    `expert_load`: tokens of the busiest rank's experts over the mean, where experts are spread over ranks.
    """
    if parameters is None:
        parameters = [stage_parameters(config.model, layout, stage) for stage in range(layout.pipeline)]
    load = expert_load if layout.expert > 1 else 1.0
    shapes = rank_shapes(config, layout, on_gpu=True, expert_load=load)
    stages = tuple(
        Stage(
            parameters=own,
            memory=stage_memory(config, layout, shapes, own, stage=number, row=workload.fullest),
        )
        for number, own in enumerate(parameters)
    )
    found = collectives(config, layout, shapes, parameters[-1], machine)
    return Plan(
        config=config,
        layout=layout,
        machine=machine,
        workload=workload,
        stages=stages,
        collectives=tuple(found),
        expert_load=load,
        time=step_time(config, layout, shapes, parameters[-1], workload, found, machine),
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything of a plan as plain values."""
    layout = plan.layout
    return {
        "world_size": layout.world,
        "layout": str(layout),
        "machine": plan.machine.name,
        "precision": plan.config.train.precision,
        "recompute": describe_recompute(plan.config),
        "workload": plan.workload.source,
        "expert_load": plan.expert_load,
        "parameters": model_parameters(plan.config.model),
        "stages": [
            {
                "params": stage.parameters.total,
                "expert_params": stage.parameters.experts,
                "memory_bytes": {
                    name: round(getattr(stage.memory, name))
                    for name in ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "total")
                },
            }
            for stage in plan.stages
        ],
        "fits": plan.fits,
        "peak_memory_bytes": round(plan.peak_bytes),
        "checkpoint_bytes": round(plan.checkpoint_bytes),
        "flops_per_step": plan.flops_per_step,
        "collectives": [
            {
                "name": item.name,
                "group_size": item.group_size,
                "nodes": item.nodes,
                "calls_per_step": item.calls,
                "bytes_per_call": round(item.call_bytes),
                "bytes_per_step": round(item.step_bytes),
                "seconds_per_step": item.step_seconds,
            }
            for item in plan.collectives
        ],
        "step_seconds": plan.time.total,
        "step_seconds_by_part": {name: getattr(plan.time, name) for name in StepTime.__slots__},
        "tokens_per_second_per_gpu": plan.tokens_per_second_per_gpu,
        "model_flops_per_second_per_gpu": plan.flops_per_second_per_gpu,
        "share_of_peak": plan.flops_per_second_per_gpu / plan.machine.flops_per_second,
        "steps": plan.workload.num_steps,
        "days": plan.run_seconds / 86_400,
        "gpu_hours": plan.run_seconds * layout.world / 3_600,
    }


def describe_recompute(config: Config) -> str:
    """The recompute setting in a word or two."""
    memory = config.memory
    return f"selective: {', '.join(memory.recompute_modules)}" if memory.recompute == "selective" else memory.recompute
