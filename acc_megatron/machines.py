"""What GPUs can do, from their makers' data sheets.

H100 SXM: https://www.nvidia.com/en-us/data-center/h100/ (989 TFLOP/s bfloat16 without sparsity, 80 GB at 3.35 TB/s,
NVLink 900 GB/s both ways), nodes of 8 with a 400 Gb/s adapter a GPU (DGX H100 data sheet).
H200: https://www.nvidia.com/en-us/data-center/h200/ (the same arithmetic, 141 GB at 4.8 TB/s).
B200: DGX B200 data sheet (72 PFLOP/s of FP8 with sparsity over eight GPUs, so 2.25 PFLOP/s of dense bfloat16 each;
180 GB at 8 TB/s, NVLink 1.8 TB/s both ways, a 400 Gb/s adapter a GPU).
"""

from dataclasses import dataclass

from acc_megatron.errors import ConfigError

GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class Machine:
    """One GPU of a node of eight; links are one way, in bytes a second, for each GPU."""

    name: str
    memory_bytes: float
    flops_per_second: float  # bfloat16, dense
    memory_bytes_per_second: float
    nvlink_bytes_per_second: float
    network_bytes_per_second: float  # InfiniBand, one 400 Gb/s adapter a GPU
    capability: float  # of its instructions: which FP8 recipes it has
    fp8_speedup: float = 2.0  # of dense matrix products over bfloat16


MACHINES = {
    "h100": Machine("H100 SXM", 80e9, 989e12, 3.35e12, 450e9, 50e9, 9.0),
    "h200": Machine("H200 SXM", 141e9, 989e12, 4.8e12, 450e9, 50e9, 9.0),
    "b200": Machine("B200", 180e9, 2250e12, 8e12, 900e9, 50e9, 10.0),
}
A100_FLOPS_PER_SECOND = 312e12  # https://www.nvidia.com/en-us/data-center/a100/; no plans are made for it


def find_machine(name: str) -> Machine:
    """The machine of that name; ConfigError names those that are known."""
    if name not in MACHINES:
        raise ConfigError(f"unknown machine {name!r}; known: {', '.join(MACHINES)}")
    return MACHINES[name]


def gpu_peak_flops_per_second(gpu_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by what its driver calls it, such as `NVIDIA H100 80GB HBM3`; None if unknown."""
    peaks = {name.upper(): machine.flops_per_second for name, machine in MACHINES.items()}
    peaks["A100"] = A100_FLOPS_PER_SECOND
    return next((peak for part, peak in peaks.items() if part in gpu_name), None)
