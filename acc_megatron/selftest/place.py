"""Where a check runs: its rank, the folder that all ranks see, and how its processes meet."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from acc_megatron.common.network_ports import free_port

if TYPE_CHECKING:
    import torch.distributed as dist

GROUP_TIMEOUT_SECONDS = 120  # of a collective; shorter than the time limit of every check
_WORLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """One rank of the selftest. `store` is shared by all ranks of this start of the processes."""

    rank: int
    world: int
    local_rank: int
    folder: Path
    is_quick: bool
    store: "dist.Store"
    _meetings: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def one_process(self) -> Iterator[None]:
        """Inside, torch.distributed starts over this process only; the device stays that of the rank."""
        saved = {key: os.environ.pop(key) for key in ("RANK", "WORLD_SIZE") if key in os.environ}
        try:
            yield
        finally:
            os.environ.update(saved)

    def meet(self) -> None:
        """Agree on a new port for the next start of torch.distributed; every rank calls this equally often.

        A port is used once, because the process that owns it may close it late.
        """
        if self.world > 1:
            os.environ["MASTER_PORT"] = self.first_rank_says("port", lambda: str(free_port()))

    def first_rank_says(self, what: str, answer: Callable[[], str]) -> str:
        """Return what rank 0 computes, on every rank; every rank calls this equally often."""
        key = f"{next(self._meetings)}/{what}"
        if self.rank == 0:
            self.store.set(key, answer())
        return self.store.get(key).decode()

    def on_first_rank(self, action: Callable[[], object]) -> None:
        """Run `action` on rank 0 while the others wait."""

        def run() -> str:
            action()
            return "done"

        self.first_rank_says("action", run)

    def child_environment(self) -> dict[str, str]:
        """Return the environment of a process that is one rank of a job over all ranks, at a new port."""
        self.meet()
        return dict(os.environ)


def rank_environment(rank: int, world: int, local_rank: int, host: str) -> dict[str, str]:
    """Return torchrun's variables of one rank without a port; for a world of one, none but the device."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC_")}
    base = {key: value for key, value in base.items() if key not in _WORLD} | {"LOCAL_RANK": str(local_rank)}
    if world == 1:
        return base
    return base | {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": host}
