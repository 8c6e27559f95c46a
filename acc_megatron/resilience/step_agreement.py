"""The one small all-reduce of a step: flags, summed counts, and whole numbers that each rank measured."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

FLAGS = ("stop", "spike", "non_finite", "broken")


@dataclass(frozen=True)
class Agreement:
    """What every rank knows after the exchange; the same on all ranks."""

    raised: frozenset[str]  # flags of FLAGS that at least one rank raised
    totals: torch.Tensor  # the ranks' counts summed, int64, in the shape that was given
    measured: dict[str, list[int]]  # by name, the number of each rank


def agree(raised: set[str], counts: torch.Tensor, measured: Mapping[str, int]) -> Agreement:
    """Exchange flags, int64 counts to sum, and named whole numbers of each rank; collective over the world.

    Every rank must give the same names. Each rank writes its numbers to its own slots of a buffer of zeros, so that
    one sum over the ranks also gathers them.
    """
    world, rank, names = dist.get_world_size(), dist.get_rank(), sorted(measured)
    slots = [[0] * world for _ in names]
    for slot, name in zip(slots, names, strict=True):
        slot[rank] = measured[name]
    head = [int(flag in raised) for flag in FLAGS] + [number for slot in slots for number in slot]
    buffer = torch.cat([torch.tensor(head, dtype=torch.int64, device=counts.device), counts.flatten()])
    dist.all_reduce(buffer)
    flags, numbers = buffer[: len(FLAGS)].tolist(), buffer[len(FLAGS) : len(head)].tolist()
    return Agreement(
        raised=frozenset(flag for flag, number in zip(FLAGS, flags, strict=True) if number),
        totals=buffer[len(head) :].view_as(counts),
        measured={name: numbers[i * world : (i + 1) * world] for i, name in enumerate(names)},
    )
