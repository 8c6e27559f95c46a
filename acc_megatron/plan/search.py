"""Every legal layout of so many GPUs, those that fit first and the fastest of them first, and why each is behind."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from acc_megatron.config import Config, MemoryConfig
from acc_megatron.errors import ConfigError
from acc_megatron.layout import Layout
from acc_megatron.machines import Machine
from acc_megatron.plan.planner import Plan, as_json, check_plan, make_plan
from acc_megatron.plan.step_time import StepTime
from acc_megatron.plan.workload import Workload

RECOMPUTE = (
    MemoryConfig(recompute="none"),
    MemoryConfig(recompute="selective", recompute_modules=["layernorm", "moe_act"]),
    MemoryConfig(recompute="full"),
)
MOST_CHUNKS = 4


def legal_layouts(config: Config, num_gpus: int, machine: Machine) -> Iterator[tuple[Config, Layout]]:
    """Every tensor, context, pipeline, virtual pipeline, expert and expert tensor size that training would accept."""
    model = config.model
    tensors = _divisors(model.num_key_value_heads)
    contexts = _divisors(num_gpus)
    pipelines = [size for size in _divisors(num_gpus) if model.num_hidden_layers % size == 0]
    experts = _divisors(model.num_experts)
    for tensor, context, pipeline, expert, shards in itertools.product(tensors, contexts, pipelines, experts, tensors):
        if num_gpus % (tensor * context * pipeline) or num_gpus % (shards * expert * pipeline) or shards > tensor:
            continue
        for chunks in range(1, MOST_CHUNKS + 1 if pipeline > 1 else 2):
            parallel = dataclasses.replace(
                config.parallel,
                tensor=tensor,
                context=context,
                pipeline=pipeline,
                virtual_pipeline=chunks,
                expert=expert,
                expert_tensor=shards,
            )
            changed = dataclasses.replace(config, parallel=parallel)
            try:
                layout = check_plan(changed, num_gpus, machine)
            except ConfigError:
                continue
            yield changed, layout


def search(config: Config, num_gpus: int, machine: Machine, workload: Workload) -> list[Plan]:
    """All legal layouts with each kind of recompute, ranked: what fits first, then by seconds a step, then memory.

    Raises ConfigError when no layout is legal.
    """
    plans = [
        make_plan(dataclasses.replace(changed, memory=memory), layout, machine, workload)
        for changed, layout in legal_layouts(config, num_gpus, machine)
        for memory in RECOMPUTE
    ]
    if not plans:
        raise ConfigError(
            f"no layout of {num_gpus} ranks is legal for train.global_batch_rows = {config.train.global_batch_rows}, "
            f"data.seq_length_tokens = {config.data.seq_length_tokens} and this model"
        )
    return sorted(plans, key=lambda plan: (not plan.fits, plan.time.total, plan.peak_bytes))


def why_behind(better: Plan, worse: Plan) -> str:
    """One line: where `worse` loses against `better`, by the largest parts of a step, and what it gains."""
    if better.fits and not worse.fits:
        return f"does not fit: {worse.peak_bytes / 1e9:.0f} of {worse.machine.memory_bytes / 1e9:.0f} GB"
    changes = {name: getattr(worse.time, name) - getattr(better.time, name) for name in StepTime.__slots__}
    slower = sorted((name for name in changes if changes[name] > 0), key=lambda name: -changes[name])[:2]
    faster = min(changes, key=changes.__getitem__)
    threshold = 0.001 * better.time.total
    parts = [f"{_words(name)} {changes[name]:+.2f} s" for name in slower if changes[name] > threshold]
    if changes[faster] < -threshold:
        parts.append(f"{_words(faster)} {changes[faster]:+.2f} s")
    memory = (worse.peak_bytes - better.peak_bytes) / 1e9
    if not parts:
        return f"the same time, {memory:+.1f} GB"
    return ", ".join(parts) + f"; {memory:+.1f} GB"


def search_as_json(plans: list[Plan], *, num_shown: int = 10) -> dict[str, Any]:
    """The best of a search, each as a plan of its own with its layout's settings and what sets it behind."""
    best = [
        as_json(plan)
        | {
            "parallel": dataclasses.asdict(plan.config.parallel),
            "memory": dataclasses.asdict(plan.config.memory),
            "behind_the_one_before": why_behind(plans[number - 1], plan) if number else None,
        }
        for number, plan in enumerate(plans[:num_shown])
    ]
    return best[0] | {"candidates": len(plans), "fitting": sum(plan.fits for plan in plans), "best": best}


def _words(name: str) -> str:
    return {"tensor": "TP", "context": "CP", "experts": "EP"}.get(name, name.replace("_", " "))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
