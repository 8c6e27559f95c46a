"""A worker of the selftest whose checks need no torch: they end well, raise, hang or die on rank 1."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acc_megatron.selftest.check import CheckFailed, Found, Skipped
from acc_megatron.selftest.place import Place
from acc_megatron.selftest.worker import Job, serve


class Toy:
    """A check with a given body; a rank that is not 1 waits for rank 1, as in a collective."""

    summary = "toy"
    advice = "read the log"

    def __init__(self, name: str, body: Callable[[Place], Found], limit_seconds: float = 60.0) -> None:
        self.name, self.body, self.limit_seconds = name, body, limit_seconds

    def run(self, place: Place) -> Found:
        if place.rank == 1 or self.name in ("pid", "skip"):
            return self.body(place)
        time.sleep(600)
        return Found()


def _pid(place: Place) -> Found:
    return Found({"rank": place.rank, "process": os.getpid()})


def _skip(place: Place) -> Found:
    raise Skipped("not here")


def _wrong(place: Place) -> Found:
    raise CheckFailed("gradient differs by 1.0e+00, the limit is 1e-05")


def _bug(place: Place) -> Found:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")


def _die(place: Place) -> Found:
    os.kill(os.getpid(), signal.SIGSEGV)
    return Found()


def _hang(place: Place) -> Found:
    time.sleep(600)
    return Found()


BODIES = {"pid": _pid, "skip": _skip, "wrong": _wrong, "bug": _bug, "die": _die}
TOYS: dict[str, Any] = {name: Toy(name, body) for name, body in BODIES.items()} | {"hang": Toy("hang", _hang, 1.0)}

if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    store: Any = None  # only checks that start torch.distributed use it
    serve(TOYS, Place(job.rank, job.world, job.local_rank, Path(job.folder), job.is_quick, store))
