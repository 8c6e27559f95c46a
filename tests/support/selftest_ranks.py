"""Runs checks of the selftest in processes that a fork server starts fast, without supervisors."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.commands import free_port
from support.run_processes import start

WORLD = 2


def run_checks(folder: Path, names: Sequence[str], before: Callable[[], None] | None = None) -> list[list[Any]]:
    """Return the outcomes of each check, rank by rank, in their smallest form; `before` breaks something first."""
    port = str(free_port())
    run = start(folder / "output", (folder, names, before), world=WORLD, body=_rank, STORE_PORT=port)
    assert run.wait() == [0] * WORLD, run.error_output()[-3000:]
    files = [folder / f"rank_{rank}.json" for rank in range(WORLD)]
    return list(map(list, zip(*(json.loads(file.read_text()) for file in files), strict=True)))


def _rank(arguments: tuple[Path, Sequence[str], Callable[[], None] | None]) -> None:
    import torch.distributed as dist

    from acc_megatron.selftest.place import Place
    from acc_megatron.selftest.registry import CHECKS
    from acc_megatron.selftest.worker import run_check

    folder, names, before = arguments
    rank = int(os.environ["RANK"])
    store = dist.TCPStore("127.0.0.1", int(os.environ["STORE_PORT"]), is_master=rank == 0)
    if before is not None:
        before()
    place = Place(rank, WORLD, rank, folder, True, dist.PrefixStore("checks", store))
    outcomes = [vars(run_check(CHECKS[name], place)) for name in names]
    (folder / f"rank_{rank}.json").write_text(json.dumps(outcomes))
    store.set(f"ended/{rank}", "")
    store.get(f"ended/{WORLD - 1 - rank}")  # rank 0 has the store
    time.sleep(0.2 * (rank == 0))


def gather_keys_in_the_wrong_order() -> None:
    """Break context-parallel attention: keys stay in the order of the ranks, not of the row."""
    import torch

    from acc_megatron.model import attention

    attention.gathered_order = lambda bounds, context: torch.arange(bounds[-1])
