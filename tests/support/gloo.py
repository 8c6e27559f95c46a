"""Run one function on several gloo processes, with a time limit; forked from a server that has imported Megatron."""

import datetime
import multiprocessing
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from support.commands import free_port
from support.run_processes import PRELOADED

multiprocessing.set_forkserver_preload(PRELOADED)


def start_and_join(entry: Callable[..., None], world: int, *arguments: Any, timeout: float, is_fresh: bool) -> None:
    """Call `entry(rank, *arguments)` on `world` processes; an exception in any of them is raised here.

    With `is_fresh` the processes import everything themselves. None is left running, whatever happens.
    """
    context = mp.start_processes(
        entry, arguments, nprocs=world, join=False, start_method="spawn" if is_fresh else "forkserver"
    )
    assert context is not None
    try:
        while not context.join(timeout=timeout):
            pass
    finally:
        for process in context.processes:
            process.kill()


def _entry(rank: int, function: Callable[..., None], world: int, port: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world, timeout=timeout)
    try:
        function(rank, *arguments)
        dist.barrier()  # keeps the store alive until no rank needs it
    finally:
        dist.destroy_process_group()


def run_on_ranks(function: Callable[..., None], world: int, *arguments: Any) -> None:
    """Call `function(rank, *arguments)` on `world` processes; an assertion in any of them fails the caller."""
    start_and_join(_entry, world, function, world, free_port(), arguments, timeout=300, is_fresh=False)
