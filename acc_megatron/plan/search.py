"""Search over all legal layouts of a number of GPUs: those that fit first, fastest first."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.speeds import Speeds
from acc_megatron.plan.switches import combinations, usable
from acc_megatron.plan.workload import Workload

MAX_CHUNKS_PER_STAGE = 4
MIN_GAIN = 0.98  # a faster layout that takes more of the time is not reported


def legal_layouts(config: Config, num_gpus: int, speeds: Speeds) -> Iterator[tuple[Config, Layout]]:
    """Yield every combination of axis sizes and pipeline chunks that training accepts."""
    model = config.model
    tensors = _divisors(model.num_key_value_heads)
    contexts = _divisors(num_gpus)
    pipelines = [size for size in _divisors(num_gpus) if model.num_hidden_layers % size == 0]
    experts = _divisors(max(1, model.num_experts))
    for tensor, context, pipeline, expert, expert_tensor in itertools.product(
        tensors, contexts, pipelines, experts, tensors
    ):
        is_divisor = num_gpus % (tensor * context * pipeline) == 0 == num_gpus % (expert_tensor * expert * pipeline)
        if not is_divisor or expert_tensor > (tensor if model.num_experts else 1):
            continue
        for chunks in range(1, MAX_CHUNKS_PER_STAGE + 1 if pipeline > 1 else 2):
            parallel = dataclasses.replace(
                config.parallel,
                tensor=tensor,
                context=context,
                pipeline=pipeline,
                virtual_pipeline=chunks,
                expert=expert,
                expert_tensor=expert_tensor,
            )
            changed = dataclasses.replace(config, parallel=parallel)
            try:
                layout = check_plan(changed, num_gpus, speeds)
            except ConfigError:
                continue
            yield changed, layout


def search(config: Config, num_gpus: int, speeds: Speeds, workload: Workload) -> list[Plan]:
    """Plan all legal layouts with each way to save memory, and sort them.

    Those that fit come first, by time and then by memory; the others follow by memory. A narrower optimizer state is
    tried only where a wider one does not leave 15 % of the memory free. Raises ConfigError when no layout is legal.
    """
    plans = list(_plans(config, num_gpus, speeds, workload))
    if not plans:
        raise ConfigError(
            f"no layout of {num_gpus} ranks is legal for train.global_batch_rows = {config.train.global_batch_rows}, "
            f"data.seq_length_tokens = {config.data.seq_length_tokens} and this model"
        )
    return sorted(plans, key=_rank)


def _rank(plan: Plan) -> tuple[bool, float, float]:
    by_time, by_memory = plan.time.total, plan.peak_bytes
    return (False, by_time, by_memory) if plan.fits else (True, by_memory, by_time)


def _plans(config: Config, num_gpus: int, speeds: Speeds, workload: Workload) -> Iterator[Plan]:
    choices = combinations(config)
    for changed, layout in legal_layouts(config, num_gpus, speeds):
        for stored in choices:
            for each in stored:
                parallel = dataclasses.replace(
                    changed.parallel, distributed_optimizer=each.parallel.distributed_optimizer
                )
                settings = dataclasses.replace(each, parallel=parallel)
                if not usable(settings, layout, speeds):
                    continue
                plan = make_plan(settings, layout, speeds, workload)
                yield plan
                if plan.has_room:
                    break


def choose(plans: Iterable[Plan]) -> Plan | None:
    """The fastest of plans that fit: one that leaves 15 % of the memory free, if there is one."""
    return min(plans, key=lambda plan: (not plan.has_room, plan.time.total, plan.peak_bytes), default=None)


def faster_plan(plan: Plan) -> Plan | None:
    """The fastest layout that leaves 15 % of the memory free, or else that fits.

    None if `plan` fits and takes at most 2 % more time.
    """
    others = _plans(plan.config, plan.layout.world, plan.speeds, plan.workload)
    best = choose(other for other in others if other.fits)
    if best is None or (plan.fits and best.time.total > MIN_GAIN * plan.time.total):
        return None
    return best


def compare_plans(better: Plan, worse: Plan) -> str:
    """One line: the parts of a step in which `worse` is slower most, the part in which it is faster, and memory."""
    if better.fits and not worse.fits:
        return f"does not fit: {worse.peak_bytes / 1e9:.0f} of {worse.machine.memory_bytes / 1e9:.0f} GB"
    before = better.time.by_part()
    changes = {name: seconds - before[name] for name, seconds in worse.time.by_part().items()}
    slower = sorted((name for name in changes if changes[name] > 0), key=lambda name: -changes[name])[:2]
    faster = min(changes, key=changes.__getitem__)
    threshold = 0.001 * better.time.total
    parts = [f"{_label(name)} {changes[name]:+.2f} s" for name in slower if changes[name] > threshold]
    if changes[faster] < -threshold:
        parts.append(f"{_label(faster)} {changes[faster]:+.2f} s")
    memory = (worse.peak_bytes - better.peak_bytes) / 1e9
    if not parts:
        return f"the same time, {memory:+.1f} GB"
    return ", ".join(parts) + f"; {memory:+.1f} GB"


def _label(name: str) -> str:
    return {"tensor": "TP", "context": "CP", "experts": "EP"}.get(name, name.replace("_", " "))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
