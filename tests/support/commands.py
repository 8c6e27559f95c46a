"""Runs commands as real processes with a time limit, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.network_ports import free_port as free_port

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"


def run_command(command: list[str], *, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process group. All of the group is killed after `timeout` seconds."""
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
    """Run `acc-megatron` as a user would, under torchrun if there are several processes."""
    launcher: list[str] = []
    if processes > 1:
        port = str(free_port())
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", port]
    return run_command([sys.executable, *launcher, "-m", "acc_megatron", *map(str, arguments)], timeout=timeout)


def good(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a successful `--json` command printed."""
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
