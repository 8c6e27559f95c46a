"""Chooses the backend of an operation and gives the reason: Triton on a supported GPU, otherwise plain torch."""

import importlib.util
import os
from collections.abc import Mapping
from typing import NamedTuple

import torch

from acc_megatron.errors import ArgumentError

IMPLEMENTATIONS = ("auto", "triton", "torch")
# tensor descriptors need rows of a multiple of 16 bytes; counted in elements of the narrowest dtype
HIDDEN_MULTIPLE = 16
DESCRIPTOR_ALIGNMENT_BYTES = 16
MIN_CAPABILITY = 8


class Choice(NamedTuple):
    """`name` is "triton" or "torch"; `reason` is one line for the log."""

    name: str
    reason: str


def choose_backend(
    tensor: torch.Tensor,
    *,
    row_multiple: int = 1,
    requested: str = "auto",
    descriptors: Mapping[str, torch.Tensor | None] | None = None,
) -> Choice:
    """Choose the backend for `tensor` `[..., columns]`; Triton needs columns to be a multiple of `row_multiple`.

    Kernels access `descriptors`, arguments by name, through tensor descriptors: they start at a multiple of 16 bytes.

    Raises ArgumentError if "triton" is requested but cannot run.
    """
    if requested == "torch":
        return Choice("torch", "torch: requested")
    obstacle = _triton_obstacle(tensor, row_multiple) or _misaligned(descriptors or {})
    if obstacle and requested == "triton":
        raise ArgumentError(f"implementation is 'triton', but {obstacle}; allowed here: auto, torch")
    if obstacle:
        return Choice("torch", f"torch: {obstacle}")
    return Choice("triton", f"triton: {tensor.device}, {tensor.dtype}")


def _triton_obstacle(tensor: torch.Tensor, row_multiple: int) -> str:
    """Why the Triton kernels cannot process this tensor; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not tensor.is_cuda and not is_interpreted:
        return f"the tensors are on {tensor.device} and triton needs a GPU"
    if tensor.is_cuda and torch.cuda.get_device_capability(tensor.device)[0] < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(tensor.device)
        return f"{name} is older than compute capability {MIN_CAPABILITY}.0"
    if tensor.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"the dtype is {tensor.dtype} and the kernels support bfloat16, float16 and float32"
    if tensor.shape[-1] % row_multiple:
        return f"the row size {tensor.shape[-1]} is not a multiple of {row_multiple}"
    return ""


def _misaligned(descriptors: Mapping[str, torch.Tensor | None]) -> str:
    for name, tensor in descriptors.items():
        if tensor is not None and tensor.data_ptr() % DESCRIPTOR_ALIGNMENT_BYTES:
            past = tensor.data_ptr() % DESCRIPTOR_ALIGNMENT_BYTES
            return f"{name} starts {past} bytes after a multiple of {DESCRIPTOR_ALIGNMENT_BYTES} bytes"
    return ""
