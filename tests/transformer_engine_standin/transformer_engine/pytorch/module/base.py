"""What every layer is: a module with a state of its own in checkpoints, and a product that knows the FP8 context."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..distributed import _Gather, _Scatter
from ..quantization import FP8GlobalStateManager, _operands


class TransformerEngineBaseModule(torch.nn.Module):
    """Empty extra state, as the original's without delayed scaling."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self.fp8 = self.fp8_calibration = False
        self.fp8_meta: dict[str, Any] = {"fp8_checkpoint": False}

    def init_fp8_metadata(self, num_gemms: int = 1) -> None:
        self.fp8 = FP8GlobalStateManager.is_fp8_enabled()

    def get_extra_state(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        if state is not None and not (isinstance(state, torch.Tensor) and state.numel() == 0):
            raise RuntimeError("Unsupported checkpoint format.")


def _initialised(
    shape: tuple[int, int], dtype: Any, device: Any, init_method: Any, tracker: Callable[[], Any] | None, name: Any
) -> torch.nn.Parameter:
    """A weight with its initial values, drawn under the named random state."""
    weight = torch.nn.Parameter(torch.empty(shape, dtype=dtype or torch.get_default_dtype(), device=device))
    fork = tracker().fork(name or "model-parallel-rng") if tracker is not None else contextlib.nullcontext()
    with torch.no_grad(), fork:
        if init_method is None:
            weight.normal_(0.0, 0.023)
        else:
            init_method(weight)
    return weight


def _multiply(module: Any, rows: torch.Tensor, weight: torch.Tensor, number: int = 0) -> torch.Tensor:
    operands = _operands(module, number)
    if operands is None:
        return F.linear(rows, weight)
    from acc_megatron.model.fp8_linear import product

    for size in (*weight.shape, rows.shape[-1]):
        assert size % 16 == 0, f"FP8 execution requires multiples of 16, got {tuple(weight.shape)}"
    return product(rows, weight, operands)


def _parallel_linear(module: Any, rows: torch.Tensor) -> torch.Tensor:
    """The product with the communication of the module's parallel mode."""
    group, is_split = module.tp_group, module.tp_size > 1
    if is_split and not module.sequence_parallel and module.parallel_mode is not None:
        raise NotImplementedError("the stand-in has tensor parallelism with sequence parallelism alone")
    if is_split and module.parallel_mode == "column":
        rows = _Gather.apply(rows, group)
    out = _multiply(module, rows, module.weight)
    if is_split and module.parallel_mode == "row":
        out = _Scatter.apply(out, group)
    return out
