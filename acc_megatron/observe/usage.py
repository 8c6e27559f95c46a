"""What a step cost: model FLOPs, their share of the device's peak, and memory."""

import resource
import sys

import numpy as np
import psutil
import torch

from acc_megatron.config import ModelConfig
from acc_megatron.data.loader import Loader
from acc_megatron.flops import training_flops
from acc_megatron.machines import gpu_peak_flops_per_second


def batch_flops(loader: Loader, batch: list[int], model: ModelConfig) -> float:
    """Model FLOPs of a global batch, forward and backward: documents without padding, the head on supervised tokens."""
    lengths = loader.dataset.lengths[np.asarray(loader.documents(batch), np.int64)].astype(np.float64)
    return training_flops(
        model,
        tokens=float(lengths.sum()),
        squared_tokens=float(np.square(lengths).sum()),
        head_tokens=loader.num_supervised_tokens(batch),
    )


def peak_flops_per_second(configured: float | None) -> float | None:
    """One device's peak: as configured, else by the GPU's name, else unknown."""
    if configured is not None or not torch.cuda.is_available():
        return configured
    return gpu_peak_flops_per_second(torch.cuda.get_device_name())


def memory_bytes() -> tuple[int, int]:
    """Memory in use now and at most so far: torch's on the GPU, else the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    now = psutil.Process().memory_info().rss
    return now, max(now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)  # the kernel's counts lag


def as_ranges(numbers: list[int]) -> str:
    """Whole numbers, exactly and shortly: 3,5-9,12."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def from_ranges(text: str) -> list[int]:
    """The numbers of `as_ranges`."""
    bounds = (part.partition("-") for part in text.split(",") if part)
    return [number for first, _, last in bounds for number in range(int(first), int(last or first) + 1)]
