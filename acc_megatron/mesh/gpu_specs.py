"""Speeds and sizes of GPUs, from their makers' data sheets.

H100 SXM: https://www.nvidia.com/en-us/data-center/h100/ (989 TFLOP/s bfloat16 without sparsity, 80 GB at 3.35 TB/s,
NVLink 900 GB/s in both directions together), nodes of 8 GPUs with a 400 Gb/s adapter each (DGX H100 data sheet).
H200: https://www.nvidia.com/en-us/data-center/h200/ (the same compute, 141 GB at 4.8 TB/s).
B200: DGX B200 data sheet (72 PFLOP/s of FP8 with sparsity over eight GPUs, so 2.25 PFLOP/s of dense bfloat16 each;
180 GB at 8 TB/s, NVLink 1.8 TB/s in both directions together, a 400 Gb/s adapter each).
Host: DGX H100 data sheet (2 TB of memory, two Xeon Platinum 8480C, PCIe 5.0).
"""

from dataclasses import dataclass

from acc_megatron.errors import ConfigError

GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class Machine:
    """One GPU of a node of eight; link speeds are per GPU and per direction."""

    name: str
    memory_bytes: float
    flops_per_second: float  # bfloat16, dense
    memory_bytes_per_second: float
    nvlink_bytes_per_second: float
    network_bytes_per_second: float  # InfiniBand, one 400 Gb/s adapter per GPU
    capability: float  # compute capability, which decides the supported FP8 recipes
    fp8_speedup: float = 2.0  # of dense matrix products, relative to bfloat16
    host_link_bytes_per_second: float = 64e9  # PCIe 5.0 x16
    host_memory_bytes_per_second: float = 76.8e9  # an eighth of two CPUs with eight channels of DDR5-4800
    host_memory_bytes: float = 256e9  # an eighth of a node's


MACHINES = {
    "h100": Machine("H100 SXM", 80e9, 989e12, 3.35e12, 450e9, 50e9, 9.0),
    "h200": Machine("H200 SXM", 141e9, 989e12, 4.8e12, 450e9, 50e9, 9.0),
    "b200": Machine("B200", 180e9, 2250e12, 8e12, 900e9, 50e9, 10.0),
}
A100_FLOPS_PER_SECOND = 312e12  # https://www.nvidia.com/en-us/data-center/a100/; used for the share of peak only


def find_machine(name: str) -> Machine:
    """Return a machine by name; raises ConfigError with the known names."""
    if name not in MACHINES:
        raise ConfigError(f"unknown machine {name!r}; known: {', '.join(MACHINES)}")
    return MACHINES[name]


def gpu_peak_flops_per_second(gpu_name: str) -> float | None:
    """Return dense bfloat16 FLOP/s by the driver's name for a GPU, such as `NVIDIA H100 80GB HBM3`; None if unknown."""
    peaks = {name.upper(): machine.flops_per_second for name, machine in MACHINES.items()}
    peaks["A100"] = A100_FLOPS_PER_SECOND
    return next((peak for part, peak in peaks.items() if part in gpu_name), None)
