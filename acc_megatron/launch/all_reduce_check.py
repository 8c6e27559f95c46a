"""An all-reduce over all ranks of a job, checked and timed before training, to find bad links early."""

import datetime
import os
import sys
import time
from typing import TYPE_CHECKING

from acc_megatron.errors import JobFailed

if TYPE_CHECKING:
    import torch

ROUNDS = 5
TIMEOUT_SECONDS = 120


def bus_gb_per_second(num_bytes: int, seconds: float, world: int) -> float:
    """The rate of a link in a ring all-reduce: every rank sends and receives 2 (n - 1) / n of the buffer."""
    return num_bytes * 2 * (world - 1) / world / seconds / 1e9


def measure_ring(device: "torch.device") -> float:
    """Sum a buffer over the ranks of torch.distributed; returns GB/s per link. Raises JobFailed if a sum is wrong."""
    import torch
    import torch.distributed as dist

    buffer = torch.empty(buffer_bytes(device) // 4, dtype=torch.float32, device=device)
    seconds = [_reduce(buffer) for _ in range(ROUNDS + 1)][1:]
    return bus_gb_per_second(buffer_bytes(device), min(seconds), dist.get_world_size())


def buffer_bytes(device: "torch.device") -> int:
    """Bytes of the buffer that is summed."""
    return 1 << 30 if device.type == "cuda" else 1 << 20


def _reduce(buffer: "torch.Tensor") -> float:
    """Seconds of one all-reduce, whose sums are checked."""
    import torch
    import torch.distributed as dist

    rank, world = dist.get_rank(), dist.get_world_size()
    buffer.fill_(rank + 1)
    if buffer.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    dist.all_reduce(buffer)
    if buffer.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    wrong = int((buffer != world * (world + 1) / 2).sum())
    if wrong:
        raise JobFailed(f"rank {rank}: {wrong} of {buffer.numel()} sums are wrong: check memory and links")
    return seconds


def main(min_gb_per_second: float) -> int:
    """Run the check under torchrun; returns 1 if a sum is wrong or the rate is below the minimum."""
    import torch
    import torch.distributed as dist

    has_gpu = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=datetime.timedelta(seconds=TIMEOUT_SECONDS))
    rank, world = dist.get_rank(), dist.get_world_size()
    try:
        rate = measure_ring(device)
    except JobFailed as error:
        raise SystemExit(f"error: {error}") from None
    dist.destroy_process_group()
    if rank == 0:
        size = buffer_bytes(device) >> 20
        print(f"ring over {world} ranks: {rate:.1f} GB/s per link, {size} MiB", file=sys.stderr, flush=True)
        if rate < min_gb_per_second:
            advice = "bisect the nodes to find the slow one"
            print(f"error: at least {min_gb_per_second:g} GB/s required: {advice}", file=sys.stderr)
    return int(rate < min_gb_per_second)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
