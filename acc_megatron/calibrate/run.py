"""A calibration: all measurements in turn, in rounds, and the file of their medians."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from acc_megatron.mesh.process_groups import process_groups  # first: it makes megatron run without CUDA

# isort: split
import psutil
import torch

from acc_megatron.calibrate.attention import Attention
from acc_megatron.calibrate.collectives import Collectives
from acc_megatron.calibrate.gemm import Gemm
from acc_megatron.calibrate.grouped_gemm import GroupedGemm
from acc_megatron.calibrate.launches import Launches
from acc_megatron.calibrate.measurement import Measurement
from acc_megatron.calibrate.memory import Memory
from acc_megatron.calibrate.permutation import Permutation
from acc_megatron.calibrate.rounds import run_rounds
from acc_megatron.calibrate.shapes import shapes_of
from acc_megatron.calibrate.update import Update
from acc_megatron.common.this_machine import machine
from acc_megatron.config import Config, ParallelConfig
from acc_megatron.mesh.gpu_specs import MACHINES
from acc_megatron.mesh.torchrun_environment import is_rank_zero, world_size
from acc_megatron.plan.machine_file import MeasuredMachine, MeasuredSpeeds, write_machine

MEASUREMENTS: tuple[Measurement, ...] = (
    Gemm(), GroupedGemm(), Attention(), Memory(), Permutation(), Launches(), Update(), Collectives(),
)  # fmt: skip


def calibrate(config: Config, out: Path, *, budget_seconds: float, say: Callable[[str], None]) -> None:
    """Measure for about `budget_seconds`, at least three rounds, and publish `out` on rank 0; collective."""
    with process_groups(ParallelConfig()):
        seconds = measure(config, budget_seconds=budget_seconds, say=say)
        if is_rank_zero():
            write_machine(out, speeds_of(config, seconds), about())


def measure(config: Config, *, budget_seconds: float, say: Callable[[str], None]) -> dict[str, float]:
    """The seconds of all samples, inside process groups without model parallelism; the same on every rank."""
    shapes = shapes_of(config)
    samples = [sample for kind in MEASUREMENTS for sample in kind.samples(shapes)]
    return run_rounds(samples, budget_seconds=budget_seconds, say=say)


def speeds_of(config: Config, seconds: Mapping[str, float]) -> MeasuredSpeeds:
    """The speeds that the measured seconds give."""
    shapes, found = shapes_of(config), MeasuredSpeeds()
    for kind in MEASUREMENTS:
        kind.speeds(shapes, seconds, found)
    return found


def about() -> MeasuredMachine:
    """What the file says about this machine."""
    on_gpu = torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if on_gpu else ""
    described = machine(gpu=gpu)
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total
    major, minor = torch.cuda.get_device_capability() if on_gpu else (0, 0)
    return MeasuredMachine(
        machine=described["machine"],
        versions=described["versions"],
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        num_processes=world_size(),
        on_gpu=on_gpu,
        spec=next((name for name in MACHINES if name.upper() in gpu), ""),
        memory_bytes=float(memory),
        compute_capability=major + minor / 10,
    )
