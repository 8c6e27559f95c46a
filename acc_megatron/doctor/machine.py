"""Checks of the machine: processors, memory, disk, shared memory, GPUs and NCCL."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from acc_megatron.doctor.finding import Finding

GIB = 1 << 30
# Python, torch and Megatron of one rank, without weights
HOST_MEMORY_BYTES = 2 * GIB
DISK_BYTES = 5 * GIB
SHARED_MEMORY_BYTES = GIB
HOPPER = (9, 0)


def has_driver() -> bool:
    """Whether the NVIDIA driver is installed."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").is_file()


def check_machine(torch: dict[str, Any], folder: Path) -> Iterator[Finding]:
    """Memory, the disk of `folder`, shared memory and GPUs; `torch` contains the facts of the probe of torch."""
    gpu = has_driver()
    free = psutil.virtual_memory().available
    yield Finding(
        name="memory",
        state="ok" if free >= HOST_MEMORY_BYTES else "wrong",
        found=f"{free / GIB:.1f} GiB free, {os.cpu_count()} cores",
        effect="the kernel may kill a process while it loads torch and Megatron",
        fix=f"free {HOST_MEMORY_BYTES / GIB:.0f} GiB per process",
        needed=True,
    )
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    yield Finding(
        name="disk",
        state="ok" if disk >= DISK_BYTES and writable else "wrong",
        found=f"{disk / GIB:,.0f} GiB free in {folder.resolve()}" + ("" if writable else ", not writable"),
        effect="saving fails; the previous checkpoint stays valid",
        fix="choose another folder" if not writable else f"free {DISK_BYTES / GIB:.0f} GiB",
        needed=True,
    )
    yield _shared_memory(gpu)
    yield from _gpus(torch, gpu)


def _shared_memory(gpu: bool) -> Finding:
    path = Path("/dev/shm")
    total = shutil.disk_usage(path).total if path.is_dir() else 0
    return Finding(
        name="shared memory",
        state="ok" if total >= SHARED_MEMORY_BYTES else "wrong",
        found=f"{total / GIB:.2f} GiB at {path}",
        effect="NCCL fails or is slow between the GPUs of a node",
        fix="start docker with --shm-size=16g; in Kubernetes mount a Memory emptyDir at /dev/shm",
        needed=gpu,
    )


def _gpus(torch: dict[str, Any], gpu: bool) -> Iterator[Finding]:
    devices = torch.get("devices", [])
    if not devices:
        yield Finding(
            name="GPUs",
            state="wrong" if has_driver() else "missing",
            found=_why_no_gpu(torch),
            effect="training runs on CPU in float32, which suits tiny models only",
            fix="install a CUDA build of torch"
            if has_driver() and not torch.get("cuda_build")
            else "run on a GPU node",
            needed=gpu,
        )
        return
    names = sorted({device["name"] for device in devices})
    old = [device for device in devices if tuple(device["capability"]) < HOPPER]
    yield Finding(
        name="GPUs",
        state="wrong" if old else "ok",
        found=f"{len(devices)} x {', '.join(names)}, CUDA {torch['cuda_build']}",
        effect=f"{len(old)} below compute capability 9.0: no FP8",
        fix="train in bfloat16, or use Hopper or newer",
    )
    busy = [(i, d) for i, d in enumerate(devices) if d["free_bytes"] < 0.95 * d["total_bytes"]]
    least = min(device["free_bytes"] for device in devices)
    yield Finding(
        name="GPU memory",
        state="wrong" if busy else "ok",
        found=f"at least {least / GIB:.1f} GiB free of {devices[0]['total_bytes'] / GIB:.1f}",
        effect=f"another process uses memory of GPU {', '.join(str(i) for i, _ in busy)}",
        fix="end the process that nvidia-smi lists",
    )
    yield Finding(
        name="NCCL", state="ok" if torch.get("nccl") else "wrong", found=torch.get("nccl", "not part of this torch"),
        effect="no training on more than one GPU", fix="use NVIDIA's PyTorch image", needed=gpu,
    )  # fmt: skip


def _why_no_gpu(torch: dict[str, Any]) -> str:
    if not has_driver():
        return "none: the NVIDIA driver is not installed"
    reason = "finds no GPU" if torch.get("cuda_build") else "is a CPU build"
    return f"none: the driver is installed, but torch {reason}"
