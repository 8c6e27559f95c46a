"""Run unmodified megatron-core 0.19.2 on CPU tensors and gloo; does nothing if CUDA is available.

Megatron uses device='cuda' literals and the current CUDA device, so torch itself is redirected. The changes apply to
the whole process and use private names of one megatron-core version, which is therefore pinned exactly. Call
`install()` before anything imports megatron.
"""

import contextlib
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._device import _device_constructors

_CPU = torch.device("cpu")
_FACTORIES = ("tensor", "zeros", "ones", "empty", "full", "arange")
_installed = False


class _Event:
    """A CUDA event that is always complete: CPU work has ended when the call returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def record(self, *args: Any) -> None: ...
    def wait(self, *args: Any) -> None: ...
    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "_Event") -> float:
        return 0.0


class _Stream:
    """A CUDA stream that runs everything immediately."""

    device = _CPU

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def wait_stream(self, stream: "_Stream") -> None: ...
    def wait_event(self, event: _Event) -> None: ...
    def synchronize(self) -> None: ...

    def record_event(self, event: _Event | None = None) -> _Event:
        return event or _Event()

    def query(self) -> bool:
        return True

    @staticmethod
    def priority_range() -> tuple[int, int]:
        return (0, 0)


def install() -> bool:
    """Redirect torch and megatron to the CPU; returns False and changes nothing where CUDA is available."""
    global _installed
    if torch.cuda.is_available():
        return False
    if not _installed:
        _installed = True
        _redirect_devices()
        _redirect_factories()
        _redirect_type_names()
        _stand_in_for_paged_stash()
        _redirect_megatron()
    return True


def _redirect_devices() -> None:
    cuda: Any = torch.cuda
    stream = _Stream()
    cuda.current_device = lambda: _CPU
    cuda.set_device = lambda device: None
    cuda.Stream, cuda.Event = _Stream, _Event
    cuda.current_stream = cuda.default_stream = lambda device=None: stream
    cuda.stream = lambda s: contextlib.nullcontext()
    cuda.synchronize = lambda device=None: None
    cuda.get_rng_state = cuda.random.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    cuda.manual_seed = torch.manual_seed


def _redirect_factories() -> None:
    def on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(factory)
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            if torch.device(kwargs.get("device") or "cpu").type == "cuda":
                kwargs["device"] = _CPU
            kwargs.pop("pin_memory", None)
            return factory(*args, **kwargs)

        return call

    # torch caches which functions `with torch.device(...)` steers: fill that cache with the originals, or the context
    # would pass the wrapped ones by, and a model that transformers builds on the meta device comes out wrong
    _device_constructors()
    for name in _FACTORIES:
        setattr(torch, name, on_cpu(getattr(torch, name)))
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]


def _redirect_type_names() -> None:
    """clip_grads and distrib_optimizer sort parameters by the string 'torch.cuda.FloatTensor'."""
    real_type = torch.Tensor.type

    def cuda_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = real_type(self, *args, **kwargs)
        if not args and not kwargs and not result.startswith("torch.cuda."):
            return result.replace("torch.", "torch.cuda.", 1)
        return result

    torch.Tensor.type = cuda_type  # type: ignore[method-assign,assignment]


def _stand_in_for_paged_stash() -> None:
    """The pipeline schedules import two Triton kernels of a CUDA feature whether or not they are used."""
    if importlib.util.find_spec("triton"):
        return
    module: Any = types.ModuleType("megatron.core.transformer.moe.ops.paged_stash")
    module.GLOBAL_BLOCK_SIZE = 1024
    module.paged_stash_copy_kernel = module.paged_stash_pop_kernel = None
    sys.modules[module.__name__] = module


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Megatron decorates functions with torch.compile when it is imported, which imports torch's whole compiler."""
    compile_function = torch.compile
    torch.compile = lambda function=None, **_: function or (lambda decorated: decorated)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_function


def _redirect_megatron() -> None:
    with _without_compiler():
        from megatron.core.tensor_parallel import random
        from megatron.core.transformer.moe import token_dispatcher

    module: Any = random
    # dropout and recompute reach for torch.cuda.default_generators
    module._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state()
    module._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)
    # recompute asks TE about fp8 even when fp8 is off; without TE the name does not exist
    if not hasattr(module, "FP8GlobalStateManager"):
        module.FP8GlobalStateManager = types.SimpleNamespace(is_fp8_enabled=lambda: False, get_fp8_recipe=lambda: None)
        module.activation_recompute_forward = lambda **_: contextlib.nullcontext()
        module.fp8_autocast = lambda **_: contextlib.nullcontext()

    def to_host(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        # the original turns split sizes into lists only when they are CUDA tensors
        return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor

    dispatcher: Any = token_dispatcher
    dispatcher.maybe_move_tensor_to_cpu = to_host
