"""The module object that the wheel imports as `transformer_engine_torch`, and the decorator that fills it."""

import types
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch

from support.engine.enumerations import ENUMERATIONS, DType

Function = TypeVar("Function", bound=Callable[..., Any])
_DTYPES = {
    "kByte": torch.uint8,
    "kInt32": torch.int32,
    "kFloat32": torch.float32,
    "kFloat16": torch.float16,
    "kBFloat16": torch.bfloat16,
    "kFloat8E4M3": torch.float8_e4m3fn,
    "kFloat8E5M2": torch.float8_e5m2,
}


class EmulatedModule(types.ModuleType):
    """`transformer_engine_torch`: enumerations and emulated functions; calls of other names raise an error.

    `calls` counts the calls of each emulated function, so that a test can assert that a path was taken.
    """

    calls: ClassVar[Counter[str]] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> None:
            raise NotImplementedError(
                f"transformer_engine_torch.{name} is not emulated: add it to tests/support/engine"
            )

        return refuse


MODULE = EmulatedModule("transformer_engine_torch")
for _name, _enumeration in ENUMERATIONS.items():
    setattr(MODULE, _name, _enumeration)
for _name in ("CommOverlapHelper", "CommOverlap", "CommOverlapP2P"):  # named in annotations of the wheel
    setattr(MODULE, _name, type(_name, (), {}))


def emulated(function: Function) -> Function:
    """Add a function to the module under its own name and count the calls that the wheel makes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        MODULE.calls[function.__name__] += 1
        return function(*args, **kwargs)

    call.__name__ = function.__name__
    setattr(MODULE, function.__name__, call)
    return function


def torch_dtype(dtype: Any, default: torch.dtype | None = None) -> torch.dtype:
    """The torch dtype of a DType of the module, or of a torch dtype; `default` for None."""
    if dtype is None:
        assert default is not None
        return default
    return dtype if isinstance(dtype, torch.dtype) else _DTYPES[DType(int(dtype)).name]


@emulated
def get_cudnn_version() -> int:
    """9.21.0, encoded as cuDNN does."""
    return 92100


@emulated
def get_cublasLt_version() -> int:  # noqa: N802
    """13.0, encoded as cuBLAS does."""
    return 130000


@emulated
def get_num_cublas_streams() -> int:
    """The streams that a grouped GEMM spreads over."""
    return 4
