"""Run one function on several gloo processes, with a time limit, in a few seconds."""

import datetime
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from commands import free_port


def _entry(rank: int, function: Callable[..., None], world: int, port: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world, timeout=timeout)
    try:
        function(rank, *arguments)
        dist.barrier()  # nobody takes the store away while another still needs it
    finally:
        dist.destroy_process_group()


def run_on_ranks(function: Callable[..., None], world: int, *arguments: Any) -> None:
    """Call `function(rank, *arguments)` on `world` processes; an assertion in any of them fails the caller."""
    entry = (function, world, free_port(), arguments)
    context = mp.start_processes(_entry, entry, nprocs=world, join=False, start_method="spawn")
    assert context is not None
    try:
        while not context.join(timeout=120):
            pass
    finally:
        for process in context.processes:
            process.kill()
