"""The layouts that a number of ranks allows: each axis, pairs of axes, and three together; does not import torch."""

import dataclasses
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from acc_megatron.compatibility import check_job
from acc_megatron.config import Config, ParallelConfig
from acc_megatron.errors import ConfigError

AXES = {"tensor": "TP", "context": "CP", "pipeline": "PP", "expert": "EP"}


@dataclass(frozen=True)
class NamedLayout:
    """A layout, the name that the report uses, and whether it needs AdamW and hides gradients in shards."""

    name: str
    parallel: ParallelConfig

    @property
    def is_sharded(self) -> bool:
        """Whether the distributed optimizer leaves each rank a shard of the gradients only."""
        return self.parallel.distributed_optimizer


def sizes_up_to(world: int) -> list[int]:
    """Return the powers of two above 1 that divide the number of ranks."""
    return [2**power for power in range(1, 12) if 2**power <= world and world % 2**power == 0]


def _named(**sizes: Any) -> NamedLayout:
    name = " ".join(f"{label}{sizes[axis]}" for axis, label in AXES.items() if axis in sizes)
    extra = {"virtual_pipeline": "VPP2", "expert_tensor": "ETP2"}
    name += "".join(f" {label}" for key, label in extra.items() if key in sizes)
    return NamedLayout(name, ParallelConfig(**sizes))


def all_layouts(world: int) -> list[NamedLayout]:
    """Return every layout to compare with one rank, the shortest first; they may not fit a model."""
    sizes = sizes_up_to(world)
    if not sizes:
        return []
    largest = sizes[-1]
    found = [_named(**{axis: size}) for axis in AXES for size in sorted({2, largest})]
    found += [_named(pipeline=2, virtual_pipeline=2), _named(tensor=2, expert_tensor=2)]
    if largest >= 4:
        found += [_named(**{one: 2, other: 2}) for one, other in combinations(AXES, 2)]
        found += [_named(tensor=2, context=2, expert=largest)]
    if largest >= 8:
        found += [_named(tensor=2, context=2, pipeline=2, expert=2)]
    sharded: dict[str, Any] = {"distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True}
    found += [
        NamedLayout("DP", ParallelConfig()),
        NamedLayout("DP, distributed optimizer overlapped", ParallelConfig(**sharded)),
        NamedLayout("EP2, distributed optimizer overlapped", ParallelConfig(expert=2, **sharded)),
    ]
    return found


def quick_layouts(world: int) -> list[NamedLayout]:
    """Return the smallest set that has every axis once."""
    if not sizes_up_to(world):
        return []
    return [_named(tensor=2), _named(context=2, expert=2), _named(pipeline=2, virtual_pipeline=2)]


def fitting(layouts: list[NamedLayout], config: Config, world: int, *, has_gpu: bool) -> list[NamedLayout]:
    """Return the layouts that training accepts for this model and number of ranks."""
    accepted = []
    for layout in layouts:
        try:
            check_job(dataclasses.replace(config, parallel=layout.parallel), world, has_gpu=has_gpu)
        except ConfigError:
            continue
        accepted.append(layout)
    return accepted
