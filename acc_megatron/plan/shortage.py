"""What would free the memory that a plan is missing: one setting at a time, or more GPUs, or shorter rows."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.switches import OFFLOADED
from acc_megatron.plan.workload import read_workload

MAX_SHOWN = 8
# by section; those that cost less precision and time come first
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("parallel", {"distributed_optimizer": True}),
    ("optimizer", {"master_weights": "remainders"}),
    ("optimizer", {"moments": "bfloat16"}),
    ("optimizer", {"gradients": "bfloat16"}),
    ("memory", {"recompute": "selective", "recompute_modules": ["layernorm", "moe"]}),
    ("memory", {"recompute": "full", "offload_modules": []}),
    ("memory", {"offload_modules": OFFLOADED[:4]}),
    ("optimizer", {"moments": "float32", "master_weights": "float32", "offload_fraction": 1.0}),
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of a plan, what it frees on the fullest device, and whether the plan fits with it."""

    change: str
    saved_bytes: float
    fits: bool


def remedies(plan: Plan) -> list[Remedy]:
    """The changes that free memory, those with which the plan fits first; empty for a plan that fits."""
    if plan.fits:
        return []
    found = []
    for change, config, num_gpus in _changed(plan):
        try:
            layout = check_plan(config, num_gpus, plan.speeds)
            workload = plan.workload if config.data == plan.config.data else read_workload(config)
            other = make_plan(config, layout, plan.speeds, workload)
        except ConfigError:
            continue
        saved = plan.peak_bytes - other.peak_bytes
        if saved > 0:
            found.append(Remedy(change, saved, other.fits))
    return sorted(found, key=lambda remedy: not remedy.fits)[:MAX_SHOWN]


def _changed(plan: Plan) -> Iterator[tuple[str, Config, int]]:
    """Yield each change in words, the settings with it, and the number of GPUs."""
    config, world = plan.config, plan.layout.world
    for section, values in CHANGES:
        before = getattr(config, section)
        after = dataclasses.replace(before, **values)
        if after != before:
            names = ", ".join(f"{section}.{key} = {value!r}" for key, value in values.items())
            yield names, dataclasses.replace(config, **{section: after}), world
    half = config.data.seq_length_tokens // 2
    data = dataclasses.replace(config.data, seq_length_tokens=half)
    yield f"data.seq_length_tokens = {half:,}", dataclasses.replace(config, data=data), world
    for key in ("context", "expert", "pipeline"):
        size = 2 * getattr(config.parallel, key)
        parallel = dataclasses.replace(config.parallel, **{key: size})
        yield f"parallel.{key} = {size}", dataclasses.replace(config, parallel=parallel), world
    for factor in (2, 4):
        sizes: dict[str, Any] = {"context": factor * config.parallel.context}
        if config.model.num_experts:
            sizes["expert"] = factor * config.parallel.expert
        names = ", ".join(f"parallel.{key} = {size}" for key, size in sizes.items())
        parallel = dataclasses.replace(config.parallel, **sizes)
        yield f"{factor * world} GPUs with {names}", dataclasses.replace(config, parallel=parallel), factor * world
