"""Rounds in which all samples run in turn, so that changes of the machine's speed touch all of them."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from acc_megatron.calibrate.clock import now
from acc_megatron.calibrate.measurement import Sample
from acc_megatron.mesh.torchrun_environment import is_rank_zero

MIN_ROUNDS, MAX_ROUNDS = 3, 20


def run_rounds(samples: Sequence[Sample], *, budget_seconds: float, say: Callable[[str], None]) -> dict[str, float]:
    """The median seconds of each sample, averaged over the ranks; every rank runs the same samples in turn."""
    taken: dict[str, list[float]] = {sample.name: [] for sample in samples}
    for sample in samples:
        sample.run()  # the first call allocates, compiles or connects
    until = time.monotonic() + budget_seconds
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and _time_is_over(until):
            break
        for sample in samples:
            barrier()
            start = now()
            sample.run()
            taken[sample.name].append(now() - start)
        say(f"round {number + 1}")
    means = mean_over_ranks([statistics.median(taken[sample.name]) for sample in samples])
    return {sample.name: mean for sample, mean in zip(samples, means, strict=True)}


def _time_is_over(until: float) -> bool:
    """Whether the time of rank 0 is over, on all ranks."""
    over = torch.tensor([float(is_rank_zero() and time.monotonic() > until)], device=torch.cuda.current_device())
    dist.all_reduce(over)
    return bool(over.item())


def mean_over_ranks(values: Sequence[float]) -> list[float]:
    """The mean of each number over all ranks; collective."""
    total = torch.tensor(values, dtype=torch.float64, device=torch.cuda.current_device())
    dist.all_reduce(total)
    return (total / dist.get_world_size()).tolist()


def barrier() -> None:
    """Wait for all ranks, so that none measures the lateness of another one."""
    dist.all_reduce(torch.zeros(1, device=torch.cuda.current_device()))
