"""Whole programs measured from outside: CPU seconds of the process and all it waited for, and its peak memory."""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from acc_megatron.errors import EnvironmentProblem

PACKAGES = (
    "acc-megatron", "numpy", "pyarrow", "tiktoken", "gigatoken", "tokenizers", "transformers", "torch", "megatron-core",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usage:
    """What one program took; `peak_mb` is that of its largest process."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float


def run_program(arguments: Sequence[str]) -> Usage:
    """Run `python arguments...` to its end; EnvironmentProblem with the end of its stderr when it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        result_file = Path(folder) / "usage.json"
        starter = [sys.executable, "-I", "-S", str(Path(__file__).with_name("run_measured.py")), str(result_file)]
        done = subprocess.run([*starter, sys.executable, *arguments], stderr=subprocess.PIPE, env=environment)
        usage = json.loads(result_file.read_bytes()) if result_file.is_file() else {"exit_code": done.returncode}
    if usage["exit_code"] or done.returncode:
        tail = done.stderr[-2_000:].decode(errors="replace")
        raise EnvironmentProblem(f"{' '.join(arguments[:2])} ended with {usage['exit_code']}:\n{tail}")
    return Usage(usage["cpu_seconds"], usage["wall_seconds"], usage["peak_kib"] / 1024)


def append_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append measurements, each with the time, the machine and the versions of what was measured."""
    common = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *common])
        if is_new:
            writer.writeheader()
        writer.writerows(row | common for row in rows)


def machine() -> dict[str, str]:
    """What a figure must stand beside: the machine and the versions of what was measured."""
    return {
        "machine": f"{platform.node()} {_processor()} x {os.cpu_count()}",
        "versions": " ".join([f"python={platform.python_version()}", *map(_version, PACKAGES)]),
    }


def _version(package: str) -> str:
    try:
        return f"{package}={version(package)}"
    except PackageNotFoundError:
        return f"{package}=absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
