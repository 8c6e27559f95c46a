"""Runs Megatron's offloading of optimizer state and activations where host memory and device memory are one.

The classes are Megatron's own. Tensors that they copy to the host are marked, because here all are CPU tensors.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch


def install_offloading() -> None:
    """Let Megatron's hybrid optimizer and activation offloading take CPU tensors; call it after Megatron's import."""
    from megatron.core.optimizer.cpu_offloading.hybrid_optimizer import HybridDeviceOptimizer
    from megatron.core.pipeline_parallel.fine_grained_activation_offload import ChunkOffloadHandler

    divide = HybridDeviceOptimizer._get_sub_optimizer_param_groups

    def divide_with_marks(self: Any, offload_fraction: float) -> Any:
        with _host_copies_are_marked():
            return divide(self, offload_fraction)

    HybridDeviceOptimizer._get_sub_optimizer_param_groups = divide_with_marks
    is_managed = ChunkOffloadHandler._can_manage_tensor_for_offload

    def is_managed_on_a_gpu(tensor: torch.Tensor) -> bool:
        with mock.patch.object(torch.Tensor, "device", torch.device("cuda")):
            return bool(is_managed(tensor))

    ChunkOffloadHandler._can_manage_tensor_for_offload = staticmethod(is_managed_on_a_gpu)
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign]


def take_offloaded_bytes() -> dict[str, int]:
    """Return the bytes that a global batch moved to the host, by module, and forget them; empty if nothing did."""
    from megatron.core.pipeline_parallel.fine_grained_activation_offload import PipelineOffloadManager

    if PipelineOffloadManager.OFFLOAD_MGR is None:
        return {}
    found = PipelineOffloadManager.OFFLOAD_MGR.offload_summary_bytes
    PipelineOffloadManager.OFFLOAD_MGR = None
    return found


def is_on_host(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a copy that Megatron made in host memory."""
    return getattr(tensor, "_is_on_host", False)


@contextmanager
def _host_copies_are_marked() -> Iterator[None]:
    """Mark the results of `Tensor.cpu`, and what is made of them."""

    def kept(name: str) -> Callable[..., torch.Tensor]:
        original = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result: Any = original(self, *args, **kwargs)
            result._is_on_host = is_on_host(self)
            return result

        return call

    def cpu(self: torch.Tensor) -> torch.Tensor:
        copy: Any = self.detach().clone()
        copy._is_on_host = True
        return copy

    replaced = {name: kept(name) for name in ("detach", "clone", "float")}
    with ExitStack() as stack:
        for name, function in (replaced | {"cpu": cpu, "pin_memory": lambda self: self}).items():
            stack.enter_context(mock.patch.object(torch.Tensor, name, function))
        yield
