"""Runs a measurement in a process of its own, so that a fault or full memory in one affects no other."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from acc_megatron.errors import EnvironmentProblem

CPU_MEMORY_SHARE = 0.9  # of the free memory


class DoesNotFit(EnvironmentProblem):
    """The memory of the device is not sufficient; the message is that of the allocator."""


def ask(module: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run `python -m module` and return its answer. Raises DoesNotFit, or EnvironmentProblem if the process fails."""
    command = [sys.executable, "-m", module, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EnvironmentProblem(f"exit code {done.returncode}: {last_line}")
    # libraries may have printed lines before
    answer: dict[str, Any] = json.loads(lines[-1])
    if "does_not_fit" in answer:
        raise DoesNotFit(answer["does_not_fit"])
    return answer


def serve(function: Callable[..., dict[str, Any]]) -> None:
    """The body of such a process: call `function` with the request of the command line and print its answer."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        _limit_memory()
    try:
        answer = function(**json.loads(sys.argv[1]))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        answer = {"does_not_fit": str(error).splitlines()[0]}
    print(json.dumps(answer))


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of the device or of the machine was not sufficient."""
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_status_bytes(key: str) -> int:
    """A line of /proc/self/status, such as VmRSS. Raises EnvironmentProblem on a system without it."""
    return _value_bytes("/proc/self/status", key)


def _limit_memory() -> None:
    """Let allocations fail before the kernel kills processes: the process gets a share of the free memory."""
    limit = memory_status_bytes("VmData") + int(CPU_MEMORY_SHARE * _value_bytes("/proc/meminfo", "MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _value_bytes(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise EnvironmentProblem(f"{path} has no line {key}: memory cannot be measured on this system")
