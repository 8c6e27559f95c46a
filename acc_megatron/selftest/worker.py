"""The process of one rank that runs the checks which its supervisor asks for on standard input.

Checks have a process of their own, because an error of a GPU, a hang or a crash cannot be undone inside a process.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from acc_megatron.common.atomic_files import write_json
from acc_megatron.errors import AccError
from acc_megatron.selftest.check import Check, Outcome, Skipped
from acc_megatron.selftest.place import Place


@dataclass(frozen=True)
class Job:
    """What a worker is told when it starts, as one JSON argument."""

    rank: int
    world: int
    local_rank: int
    folder: str  # seen by every rank
    is_quick: bool
    store_host: str
    store_port: int
    store_prefix: str


def outcome_file(folder: Path, number: int, rank: int) -> Path:
    """Return the file of the outcome of request `number` on a rank."""
    return folder / "outcomes" / f"{number}_{rank}.json"


def run_check(check: Check, place: Place) -> Outcome:
    """Run one check on this rank; an error becomes its outcome."""
    try:
        found = check.run(place)
    except Skipped as reason:
        return Outcome(state="SKIP", text=str(reason))
    except AccError as error:
        return Outcome(state="FAIL", text=str(error), cause="check")
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        return Outcome(state="FAIL", text=f"{type(error).__name__}: {lines[0]}", cause="error")
    return Outcome(state="PASS", figures=found.figures, text=found.note)


def serve(checks: Mapping[str, Check], place: Place) -> None:
    """Run what standard input asks for, lines of a number and the name of a check, until it is closed."""
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        number, name = requests.get().split()
        print(f"check {name}", file=sys.stderr, flush=True)
        outcome = run_check(checks[name], place)
        write_json(outcome_file(place.folder, int(number), place.rank), asdict(outcome))


def _read(requests: "queue.Queue[str]") -> None:
    """Pass lines on; when the supervisor closes the input or ends, end this process, whatever it is doing."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def make_place(job: Job) -> Place:
    """Join the store of the supervisors."""
    import torch.distributed as dist

    store = dist.PrefixStore(job.store_prefix, dist.TCPStore(job.store_host, job.store_port, is_master=False))
    return Place(job.rank, job.world, job.local_rank, Path(job.folder), job.is_quick, store)


def main() -> None:
    """Serve the registered checks."""
    from acc_megatron.selftest.registry import CHECKS

    serve(CHECKS, make_place(Job(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
