"""Real processes with a time limit that leave none behind: any command, and `acc-megatron` as a user runs it."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def free_port() -> int:
    """A free port below the range that sockets without a port of their own are given, so that none takes it first."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def run_command(command: list[str], *, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own, which is killed whole when time is up."""
    full = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | environment
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=full, start_new_session=True, cwd=ROOT
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{' '.join(command)} took over {timeout} s:\n{err[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def acc(*arguments: str | Path, processes: int = 1, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `acc-megatron` as a user would, under torchrun when there are several processes."""
    launcher: list[str] = []
    if processes > 1:
        port = str(free_port())
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", port]
    return run_command([sys.executable, *launcher, "-m", "acc_megatron", *map(str, arguments)], timeout=timeout)


def good(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a successful `--json` command printed."""
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
