"""`bench plan`: predicts steps of small runs from a calibration of this machine, and compares them with real steps."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acc_megatron.bench.csv_file import append_csv
from acc_megatron.bench.plan_cases import CASES, Case
from acc_megatron.bench.plan_config import case_config, write_inputs
from acc_megatron.common.this_machine import machine
from acc_megatron.errors import AccError
from acc_megatron.plan.machine_file import read_machine
from acc_megatron.plan.planner import check_plan, make_plan
from acc_megatron.plan.workload import read_workload

TIME_LIMIT_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A predicted and a measured step, in seconds."""

    case: str
    processes: int
    measured_seconds: float
    predicted_seconds: float
    error: float  # of the prediction, as a share of the measured time


def bench_plan(
    *,
    num_steps: int,
    calibration_seconds: float,
    csv_file: Path,
    say: Callable[[str], None],
    worlds: Sequence[int] = (1, 2, 4),
) -> dict[str, Any]:
    """Calibrate, predict and train each case of these numbers of processes, of one thread each, on this machine.

    The clock is the CPU time of a process, which other programs on the machine hardly change. It does not contain the
    time in which a process waits, so the plan's waiting and pipeline bubble are left out. On GPU it is wall time.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, CASES)
        for world in worlds:
            say(f"{world} processes")
            _run(world, folder, num_steps, calibration_seconds)
        results = [compare(case, folder, number) for number, case in enumerate(CASES) if case.world in worlds]
    rows = [asdict(result) for result in results]
    append_csv(csv_file, rows)
    return {"cases": rows, "largest_error": max(abs(result.error) for result in results), **machine()}


def _run(world: int, folder: Path, num_steps: int, calibration_seconds: float) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world),
        "-m", "acc_megatron.bench.plan_worker", str(folder), str(num_steps), str(calibration_seconds),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, timeout=TIME_LIMIT_SECONDS, check=False)
    if done.returncode:
        raise AccError(f"the {world} processes ended with exit code {done.returncode}; the lines above say why")


def compare(case: Case, folder: Path, number: int) -> Comparison:
    """Plan a case with the speeds that were measured around it."""
    config, speeds = case_config(case, folder), read_machine(str(folder / f"machine_{number}.toml"))
    layout = check_plan(config, case.world, speeds)
    time = make_plan(config, layout, speeds, read_workload(config), expert_load=1.0).time
    predicted = time.total if speeds.on_gpu else time.total - time.waiting - time.bubble
    measured = json.loads((folder / f"measured_{number}.json").read_text())
    return Comparison(
        case=case.name,
        processes=case.world,
        measured_seconds=measured,
        predicted_seconds=predicted,
        error=predicted / measured - 1,
    )
