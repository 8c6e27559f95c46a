"""Real processes that start fast, because a fork server has already imported torch and megatron-core.

Each process has its own exit code, signals and output files, and several form a job with torchrun's environment.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from support.commands import free_port

# what a training imports; without it each process would
PRELOADED = ["acc_megatron.training.train", "acc_megatron.cli.app", "torch._dynamo", "pyarrow.dataset"]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED)


def command_line(arguments: Sequence[str]) -> None:
    """Run the command `acc-megatron`, which ends with sys.exit."""
    from acc_megatron.cli import main

    sys.argv = ["acc-megatron", *arguments]
    main()


def _child(body: Callable[..., None], arguments: Any, environment: dict[str, str], stderr: str, stdout: str) -> None:
    import torch

    for stream, path in ((2, stderr), (1, stdout)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(environment)
    torch.set_num_threads(1)
    body(arguments)


@dataclass
class Run:
    """The processes of one run, rank by rank."""

    processes: list[ForkServerProcess]
    folder: Path

    def error_output(self, rank: int = 0) -> str:
        return (self.folder / f"stderr_{rank}").read_text()

    def output(self, rank: int = 0) -> str:
        return (self.folder / f"stdout_{rank}").read_text()

    def wait(self, timeout: float = 400) -> list[int | None]:
        """Return the exit codes when all have ended; after `timeout` seconds kill them and fail the test."""
        until = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        if None in codes:
            pytest.fail(f"exit codes after {timeout} s: {codes}\n" + self.error_output()[-3000:])
        return codes

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 300) -> None:
        """Wait until `condition` is true; fail the test if a process ends or the time is over."""
        until = time.monotonic() + timeout
        while not condition():
            dead = [process.exitcode for process in self.processes if process.exitcode is not None]
            if dead or time.monotonic() > until:
                self.kill()
                pytest.fail(f"{what} did not happen; exit codes so far: {dead}\n" + self.error_output()[-3000:])
            time.sleep(0.02)

    def send(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.processes[rank].pid or 0, number)

    def kill(self) -> None:
        """Kill the processes that still run."""
        for process in self.processes:
            if process.exitcode is None:
                process.kill()
            process.join()


def start(
    folder: Path, arguments: Any, *, world: int = 1, body: Callable[..., None] = command_line, **environment: str
) -> Run:
    """Start `body(arguments)` in `world` processes; their output goes to files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port, processes = str(free_port()), []
    for rank in range(world):
        own = {"OMP_NUM_THREADS": "1", **environment}
        if world > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        files = (str(folder / f"stderr_{rank}"), str(folder / f"stdout_{rank}"))
        process = _server.Process(target=_child, args=(body, arguments, own, *files))
        process.start()
        processes.append(process)
    return Run(processes, folder)


def import_hf_folder(hf: Path, out: Path) -> None:
    """Convert a Hugging Face folder to a float32 checkpoint with `acc-megatron import`."""
    arguments = ["import", str(hf), "--out", str(out), "--precision", "float32"]
    run = start(out.with_name(f"{out.name}_output"), arguments)
    assert run.wait() == [0], run.error_output()[-3000:]
