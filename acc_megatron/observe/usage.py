"""Model FLOPs, peak speed and memory, for the log of a step."""

import resource
import sys

import numpy as np
import psutil
import torch

from acc_megatron.config import ModelConfig
from acc_megatron.data.loader import Loader
from acc_megatron.mesh.gpu_specs import gpu_peak_flops_per_second
from acc_megatron.model.flops import training_flops


def batch_flops(loader: Loader, batch: list[int], model: ModelConfig) -> float:
    """Model FLOPs of a global batch, forward and backward, without padding and with the head on supervised tokens."""
    lengths = loader.dataset.lengths[np.asarray(loader.documents(batch), np.int64)].astype(np.float64)
    return training_flops(
        model,
        tokens=float(lengths.sum()),
        squared_tokens=float(np.square(lengths).sum()),
        head_tokens=loader.num_supervised_tokens(batch),
    )


def peak_flops_per_second(configured: float | None) -> float | None:
    """Peak speed of one device: as configured, otherwise by the name of the GPU, otherwise None."""
    if configured is not None or not torch.cuda.is_available():
        return configured
    return gpu_peak_flops_per_second(torch.cuda.get_device_name())


def memory_bytes() -> tuple[int, int]:
    """Current and peak memory: allocated by torch on the GPU, otherwise resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    now = psutil.Process().memory_info().rss
    return now, max(
        now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    )  # the two counters are updated at different times


def as_ranges(numbers: list[int]) -> str:
    """Write integers as ranges such as 3,5-9,12."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def from_ranges(text: str) -> list[int]:
    """Read the numbers that `as_ranges` wrote."""
    bounds = (part.partition("-") for part in text.split(",") if part)
    return [number for first, _, last in bounds for number in range(int(first), int(last or first) + 1)]
