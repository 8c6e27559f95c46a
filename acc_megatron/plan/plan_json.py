"""The object that `acc-megatron plan --json` prints."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from acc_megatron.model.parameter_count import num_parameters
from acc_megatron.plan.planner import Plan, StagePlan
from acc_megatron.plan.search import compare_plans
from acc_megatron.plan.shortage import Remedy
from acc_megatron.plan.speed_figures import describe_speeds
from acc_megatron.plan.switches import describe_recompute, describe_storage


class MemoryJson(TypedDict):
    """Bytes of one rank at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    buffers: int
    total: int


class StageJson(TypedDict):
    """One rank of a pipeline stage."""

    params: int
    expert_params: int
    memory_bytes: MemoryJson


class CollectiveJson(TypedDict):
    """One kind of collective on one rank."""

    name: str
    group_size: int
    nodes: int
    calls_per_step: float
    bytes_per_call: int
    bytes_per_step: int
    seconds_per_step: float


class SpeedJson(TypedDict):
    """A speed of the time model, in words."""

    name: str
    source: str  # "assumed", or the machine file
    value: str


class FasterJson(TypedDict):
    """The fastest layout that fits."""

    layout: str
    recompute: str
    storage: str
    step_seconds: float
    peak_memory_bytes: int
    parallel: dict[str, Any]


class RemedyJson(TypedDict):
    """A change that frees device memory."""

    change: str
    saved_bytes: int
    fits: bool


class PlanJson(TypedDict):
    """A plan of one layout; in the result of a search also what the search adds."""

    world_size: int
    layout: str
    machine: str
    precision: str
    recompute: str
    storage: str  # what is offloaded or not stored in float32, in words
    workload: str
    expert_load: float
    parameters: int
    stages: list[StageJson]
    fits: bool
    peak_memory_bytes: int
    missing_bytes: int  # 0 if it fits
    host_memory_bytes: int  # per GPU, for what is offloaded
    checkpoint_bytes: int
    saved_bytes_per_gpu: int
    saving_host_bytes_per_node: int
    flops_per_step: float
    collectives: list[CollectiveJson]
    speeds: list[SpeedJson]
    step_seconds: float
    step_seconds_by_part: dict[str, float]
    tokens_per_second_per_gpu: float
    model_flops_per_second_per_gpu: float
    share_of_peak: float
    steps: int
    days: float
    gpu_hours: float
    parallel: NotRequired[dict[str, Any]]  # settings of the layout
    memory: NotRequired[dict[str, Any]]
    optimizer: NotRequired[dict[str, Any]]
    difference_to_previous: NotRequired[str | None]
    faster: NotRequired[FasterJson | None]
    remedies: NotRequired[list[RemedyJson]]  # of a plan that does not fit


class SearchJson(PlanJson):
    """The best plan of a search, and the first plans of its ranking."""

    candidates: int
    fitting: int
    best: list[PlanJson]


def plan_json(plan: Plan, faster: Plan | None, remedies: Sequence[Remedy] = ()) -> PlanJson:
    """Convert the plan of one layout to JSON values, with the fastest layout if it is another one."""
    shown = _plan_json(plan)
    shown["faster"] = _faster_json(faster) if faster else None
    shown["remedies"] = remedies_json(remedies)
    return shown


def remedies_json(remedies: Sequence[Remedy]) -> list[RemedyJson]:
    """Convert what would free memory."""
    return [{"change": each.change, "saved_bytes": round(each.saved_bytes), "fits": each.fits} for each in remedies]


def _faster_json(plan: Plan) -> FasterJson:
    return {
        "layout": str(plan.layout),
        "recompute": describe_recompute(plan.config),
        "storage": describe_storage(plan.config),
        "step_seconds": plan.time.total,
        "peak_memory_bytes": round(plan.peak_bytes),
        "parallel": dataclasses.asdict(plan.config.parallel),
    }


def _plan_json(plan: Plan) -> PlanJson:
    layout = plan.layout
    return {
        "world_size": layout.world,
        "layout": str(layout),
        "machine": plan.machine.name,
        "precision": plan.config.train.precision,
        "recompute": describe_recompute(plan.config),
        "storage": describe_storage(plan.config),
        "workload": plan.workload.source,
        "expert_load": plan.expert_load,
        "parameters": num_parameters(plan.config.model),
        "stages": [_stage_json(stage) for stage in plan.stages],
        "fits": plan.fits,
        "peak_memory_bytes": round(plan.peak_bytes),
        "missing_bytes": round(plan.missing_bytes),
        "host_memory_bytes": round(plan.host_bytes),
        "checkpoint_bytes": round(plan.checkpoint_bytes),
        "saved_bytes_per_gpu": round(plan.saved_bytes_per_gpu),
        "saving_host_bytes_per_node": round(plan.saving_host_bytes_per_node),
        "flops_per_step": plan.flops_per_step,
        "collectives": [
            {
                "name": item.name,
                "group_size": item.group_size,
                "nodes": item.num_nodes,
                "calls_per_step": item.calls,
                "bytes_per_call": round(item.call_bytes),
                "bytes_per_step": round(item.step_bytes),
                "seconds_per_step": item.step_seconds,
            }
            for item in plan.collectives
        ],
        "speeds": [
            {
                "name": item.name,
                "source": plan.speeds.source if item.is_measured else "assumed",
                "value": item.text.removeprefix(f"{item.name} "),
            }
            for item in describe_speeds(plan)
        ],
        "step_seconds": plan.time.total,
        "step_seconds_by_part": plan.time.by_part(),
        "tokens_per_second_per_gpu": plan.tokens_per_second_per_gpu,
        "model_flops_per_second_per_gpu": plan.flops_per_second_per_gpu,
        "share_of_peak": plan.flops_per_second_per_gpu / plan.machine.flops_per_second,
        "steps": plan.workload.num_steps,
        "days": plan.run_seconds / 86_400,
        "gpu_hours": plan.run_seconds * layout.world / 3_600,
    }


def _stage_json(stage: StagePlan) -> StageJson:
    memory = stage.memory
    return {
        "params": stage.parameters.total,
        "expert_params": stage.parameters.experts,
        "memory_bytes": {
            "weights": round(memory.weights),
            "gradients": round(memory.gradients),
            "optimizer": round(memory.optimizer),
            "activations": round(memory.activations),
            "loss": round(memory.loss),
            "buffers": round(memory.buffers),
            "total": round(memory.total),
        },
    }


def search_json(plans: list[Plan], remedies: Sequence[Remedy] = (), *, num_shown: int = 10) -> SearchJson:
    """Convert the ranking of a search: the best plans, each with its settings and its difference to the one before."""
    best: list[PlanJson] = []
    for number, plan in enumerate(plans[:num_shown]):
        shown = _plan_json(plan)
        shown["parallel"] = dataclasses.asdict(plan.config.parallel)
        shown["memory"] = dataclasses.asdict(plan.config.memory)
        shown["optimizer"] = dataclasses.asdict(plan.config.optimizer)
        shown["difference_to_previous"] = compare_plans(plans[number - 1], plan) if number else None
        best.append(shown)
    best[0]["remedies"] = remedies_json(remedies)
    return {**best[0], "candidates": len(plans), "fitting": sum(plan.fits for plan in plans), "best": best}
