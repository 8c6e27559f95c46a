"""Which implementation runs, and why: Triton on a GPU that has it, plain torch everywhere else."""

import importlib.util
import os
from typing import NamedTuple

import torch

from acc_megatron.errors import ArgumentError

IMPLEMENTATIONS = ("auto", "triton", "torch")
# what a tensor descriptor asks of the rows of a matrix, in elements: 16 bytes of the narrowest dtype
HIDDEN_MULTIPLE = 16
MIN_CAPABILITY = 8


class Choice(NamedTuple):
    """`name`: triton or torch; `reason`: one line for the log."""

    name: str
    reason: str


def choose_implementation(tensor: torch.Tensor, *, row_multiple: int = 1, requested: str = "auto") -> Choice:
    """Choose for `tensor` `[rows, columns]`; columns must be a multiple of `row_multiple` for the kernels.

    Raises ArgumentError where "triton" is requested and cannot run.
    """
    if requested == "torch":
        return Choice("torch", "torch: requested")
    obstacle = _obstacle(tensor, row_multiple)
    if obstacle and requested == "triton":
        raise ArgumentError(f"implementation is 'triton', but {obstacle}; allowed here: auto, torch")
    if obstacle:
        return Choice("torch", f"torch: {obstacle}")
    return Choice("triton", f"triton: {tensor.device}, {tensor.dtype}")


def _obstacle(tensor: torch.Tensor, row_multiple: int) -> str:
    """Why the kernels cannot take this tensor; empty when they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not tensor.is_cuda and not interpreted:
        return f"tensors are on {tensor.device} and triton runs on a GPU"
    if tensor.is_cuda and torch.cuda.get_device_capability(tensor.device)[0] < MIN_CAPABILITY:
        return f"{torch.cuda.get_device_name(tensor.device)} is older than compute capability {MIN_CAPABILITY}.0"
    if tensor.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"dtype is {tensor.dtype} and the kernels take bfloat16, float16 and float32"
    if tensor.shape[1] % row_multiple:
        return f"size {tensor.shape[1]} is no multiple of {row_multiple}"
    return ""
