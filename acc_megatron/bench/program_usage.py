"""Measures a program from outside: CPU seconds of it and of every process that it waited for, and peak memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.errors import EnvironmentProblem


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources that one program used; `peak_mb` is the peak of its largest process."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float


def median_ratio(
    over: Sequence[Usage | None], under: Sequence[Usage | None], field: str = "cpu_seconds"
) -> float | None:
    """The median over rounds of `over` divided by `under`; None if no round has both."""
    ratios = [getattr(a, field) / getattr(b, field) for a, b in zip(over, under, strict=True) if a and b]
    return statistics.median(ratios) if ratios else None


def rounded(value: float | None, digits: int) -> float | None:
    """A figure to print, or None where there is none."""
    return None if value is None else round(value, digits)


def run_program(arguments: Sequence[str]) -> Usage:
    """Run `python ARGUMENTS...` to its end. Raises EnvironmentProblem with the end of its stderr if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        result_file = Path(folder) / "usage.json"
        starter = [sys.executable, "-I", "-S", str(Path(__file__).with_name("run_measured.py")), str(result_file)]
        done = subprocess.run([*starter, sys.executable, *arguments], stderr=subprocess.PIPE, env=environment)
        usage = json.loads(result_file.read_bytes()) if result_file.is_file() else {"exit_code": done.returncode}
    if usage["exit_code"] or done.returncode:
        tail = done.stderr[-2_000:].decode(errors="replace")
        command = " ".join(["python", *arguments[:2]])
        raise EnvironmentProblem(f"{command} ended with exit code {usage['exit_code']}:\n{tail}")
    return Usage(usage["cpu_seconds"], usage["wall_seconds"], usage["peak_kib"] / 1024)
