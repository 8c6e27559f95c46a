"""The state of torch in which the operations run their arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kernel_context(tensor: torch.Tensor) -> Iterator[None]:
    """Make the GPU of `tensor` the current one, where Triton launches and allocates, and switch autocast off.

    The dtypes are explicit inside of the operations; autocast would replace float32 products by narrower ones.
    """
    with torch.cuda.device_of(tensor), torch.autocast(tensor.device.type, enabled=False):
        yield


def autocast_tensors(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast to the dtype of an active autocast region, as `F.linear` does; gradients keep the original dtypes."""
    device_type = tensors[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)
