"""An all-reduce over all ranks: right sums, and the rate of a link."""

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist

from acc_megatron.config import ParallelConfig
from acc_megatron.launch.all_reduce_check import measure_ring
from acc_megatron.selftest.check import Found, Skipped
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place


class Ring:
    """The same all-reduce that `launch` runs before a job."""

    name = "ring"
    summary = "an all-reduce over all ranks gives the right sums"
    limit_seconds = 300.0
    advice = "start it on halves of the nodes to find the bad link; NCCL_DEBUG=INFO shows what NCCL chose"

    def run(self, place: Place) -> Found:
        """Sum a buffer over all ranks a few times."""
        if place.world == 1:
            raise Skipped("one rank has no links")
        place.meet()
        with process_groups(ParallelConfig(), timeout_seconds=GROUP_TIMEOUT_SECONDS):
            device = torch.device("cuda", place.local_rank) if torch.cuda.is_available() else torch.device("cpu")
            rate = measure_ring(device)
            first = dist.get_rank() == 0
        return Found({"GB/s per link": rate} if first else {})
