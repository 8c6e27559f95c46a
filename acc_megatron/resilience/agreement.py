"""The one small all-reduce of a step: what any rank saw, what all ranks count together, and what each rank measured."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

FLAGS = ("stop", "spike", "non_finite", "broken")


@dataclass(frozen=True)
class Agreement:
    """What every rank knows after the exchange, the same on all of them."""

    raised: frozenset[str]  # flags of FLAGS that at least one rank raised
    totals: torch.Tensor  # the sum of the ranks' counts, int64, in the shape that was given
    measured: list[list[int]]  # a row a rank


def agree(raised: set[str], counts: torch.Tensor, measured: list[int]) -> Agreement:
    """Exchange flags, int64 counts that are summed, and a few whole numbers of each rank; collective over the world.

    Each rank writes its numbers into a place of its own of zeros, so that one sum does the work of a gather too.
    """
    world, rank, num_flags = dist.get_world_size(), dist.get_rank(), len(FLAGS)
    own = [int(flag in raised) for flag in FLAGS] + [0] * (world * len(measured))
    own[num_flags + rank * len(measured) : num_flags + (rank + 1) * len(measured)] = measured
    head = torch.tensor(own, dtype=torch.int64, device=counts.device)
    buffer = torch.cat([head, counts.flatten()])
    dist.all_reduce(buffer)
    numbers = buffer[: len(own)].tolist()
    flags, rows = numbers[:num_flags], numbers[num_flags:]
    return Agreement(
        frozenset(flag for flag, number in zip(FLAGS, flags, strict=True) if number),
        buffer[len(own) :].view_as(counts),
        [rows[i : i + len(measured)] for i in range(0, len(rows), len(measured))],
    )
