"""The selftest of all GPUs: the ranks of torchrun, or without it one process for each GPU of this machine."""

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from acc_megatron.common.atomic_files import write_json
from acc_megatron.common.network_ports import free_port
from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.mesh.torchrun_environment import is_rank_zero, say, world_size
from acc_megatron.selftest.check import Result
from acc_megatron.selftest.registry import CHECKS
from acc_megatron.selftest.report import Finished
from acc_megatron.selftest.supervisor import Supervisor
from acc_megatron.selftest.worker import Job

VISIBLE_SECONDS = 30  # a network file system may show a new folder late


@dataclass(frozen=True)
class _Meeting:
    """The store that all supervisors share, and the ranks of this one."""

    store: dist.Store
    host: str
    port: int
    prefix: str
    first_rank: int
    num_ranks: int
    world: int
    local_rank: int


def run_selftest(out: Path, *, is_quick: bool, only: Sequence[str] = (), processes: int | None = None) -> Finished:
    """Run the checks, print each on stderr as it ends, and return the results, equal on every rank.

    `out` gets a folder with the logs and result.json. Raises ConfigError for an unknown check, EnvironmentProblem if a
    node does not see `out`, JobFailed if a node is gone.
    """
    checks = [CHECKS[name] for name in only] if only else list(CHECKS.values())
    meeting = _meet(processes)
    folder = _shared_folder(out, meeting)
    first = Job(
        rank=meeting.first_rank, world=meeting.world, local_rank=meeting.local_rank, folder=str(folder),
        is_quick=is_quick, store_host=meeting.host, store_port=meeting.port, store_prefix=meeting.prefix,
    )  # fmt: skip
    say(f"selftest of {meeting.world} ranks; logs: {folder / 'logs'}")
    results: list[Result] = []
    for result in Supervisor(first, meeting.num_ranks, meeting.store).run(checks):
        say(f"{result.state}  {result.name}  {result.seconds:.1f} s")
        results.append(result)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    finished = Finished(results, ranks=meeting.world, gpu=gpu, is_quick=is_quick)
    if is_rank_zero():
        _publish(folder, finished)
    return finished


def _meet(processes: int | None) -> _Meeting:
    """Join the store of torchrun, or start one for this process, which then has all ranks."""
    if "RANK" not in os.environ:
        world = processes or max(1, torch.cuda.device_count())
        port = free_port()
        store = dist.TCPStore("127.0.0.1", port, is_master=True)
        return _Meeting(dist.PrefixStore("selftest", store), "127.0.0.1", port, "selftest", 0, world, world, 0)
    if processes is not None:
        raise ConfigError("--processes is for one process only: under torchrun, --nproc-per-node sets it")
    rank, world, local = int(os.environ["RANK"]), world_size(), int(os.environ.get("LOCAL_RANK", 0))
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(host, port, is_master=rank == 0 and not has_agent)
    prefix = f"selftest/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return _Meeting(dist.PrefixStore(prefix, store), host, port, prefix, rank, 1, world, local)


def _shared_folder(out: Path, meeting: _Meeting) -> Path:
    """Make a new folder on rank 0 and check that this machine sees it."""
    if meeting.first_rank == 0:
        folder = out.absolute() / f"{time.strftime('%Y%m%d_%H%M%S')}_{secrets.token_hex(2)}"
        folder.joinpath("outcomes").mkdir(parents=True)
        meeting.store.set("folder", str(folder))
    folder = Path(meeting.store.get("folder").decode())
    until = time.monotonic() + VISIBLE_SECONDS
    while not folder.is_dir():
        if time.monotonic() > until:
            raise EnvironmentProblem(
                f"rank {meeting.first_rank} does not see {folder}, which rank 0 made: give --out a folder that every "
                "node sees"
            )
        time.sleep(0.2)
    return folder


def _publish(folder: Path, finished: Finished) -> None:
    write_json(folder / "result.json", finished.as_json())
    shutil.rmtree(folder / "outcomes", ignore_errors=True)
    if finished.passed:  # otherwise the datasets and checkpoints may explain the failure
        shutil.rmtree(folder / "work", ignore_errors=True)
