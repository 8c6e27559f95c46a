"""An all-reduce over all ranks of a job, checked and timed before training: a bad link shows here, not at step 1."""

import datetime
import os
import sys
import time
from typing import Any

ROUNDS = 5
TIMEOUT_SECONDS = 120


def bus_gb_per_second(num_bytes: int, seconds: float, world: int) -> float:
    """What each link carries in a ring all-reduce: every rank sends and receives 2 (n - 1) / n of the buffer."""
    return num_bytes * 2 * (world - 1) / world / seconds / 1e9


def main(least_gb_per_second: float) -> int:
    """Sum a buffer over all ranks under torchrun; 1 when a sum is wrong or the ring is slower than `least`."""
    import torch
    import torch.distributed as dist

    has_gpu = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=datetime.timedelta(seconds=TIMEOUT_SECONDS))
    rank, world = dist.get_rank(), dist.get_world_size()
    num_bytes = 1 << 30 if has_gpu else 1 << 20
    buffer = torch.empty(num_bytes // 4, dtype=torch.float32, device=device)
    seconds = [_reduce(torch, dist, buffer, rank, world, has_gpu) for _ in range(ROUNDS + 1)][1:]
    rate = bus_gb_per_second(num_bytes, min(seconds), world)
    dist.destroy_process_group()
    if rank == 0:
        print(f"ring over {world} ranks: {rate:.1f} GB/s a link, {num_bytes >> 20} MiB", file=sys.stderr, flush=True)
        if rate < least_gb_per_second:
            print(f"error: {least_gb_per_second:g} GB/s wanted: find the slow node by halves", file=sys.stderr)
    return int(rate < least_gb_per_second)


def _reduce(torch: Any, dist: Any, buffer: Any, rank: int, world: int, has_gpu: bool) -> float:
    buffer.fill_(rank + 1)
    if has_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    dist.all_reduce(buffer)
    if has_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    wrong = int((buffer != world * (world + 1) / 2).sum())
    if wrong:
        raise SystemExit(f"error: rank {rank}: {wrong} of {buffer.numel()} sums are wrong: check memory and links")
    return seconds


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
