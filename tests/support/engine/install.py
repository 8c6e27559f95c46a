"""Import Transformer Engine's wheel over the emulation; torch then reports an H100 to Transformer Engine.

Call `install()` once, before Megatron or Transformer Engine is imported, and in a child process only: its changes to
torch stay.
"""

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from support.commands import ROOT
from support.engine.offloading import is_on_host

FOLDER = ROOT / "build" / "engine"
_ENVIRONMENT = {
    "NVTE_PROJECT_BUILDING": "1",  # transformer_engine.common then loads no shared library
    "NVTE_TORCH_COMPILE": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "TRITON_INTERPRET": "1",  # kernels can then be defined without a GPU driver
    "NVTE_CPU_OFFLOAD_V1": "1",  # as acc-megatron train sets it with memory.offload_modules
}
# where the product asks for CUDA to choose Megatron's fields and optimizer: these tests run what a GPU would get
_CONFIGURES_A_GPU = ("acc_megatron.model.transformer_config", "acc_megatron.training.optimizer")


def install() -> None:
    """Make `import transformer_engine` give the wheel over the emulated C++ module."""
    assert "transformer_engine" not in sys.modules and "megatron.core" not in sys.modules
    os.environ.update(_ENVIRONMENT)
    sys.path.append(str(FOLDER))
    _claim_a_gpu()
    _emulate_module()
    engine = _import_without_library()
    _replace_triton_launchers()
    _wait_for_gloo_once()
    _take_the_random_state_of_the_cpu()
    _accept_float32()
    assert Path(engine.__file__ or "").is_relative_to(FOLDER)


def _claim_a_gpu() -> None:
    """Report an H100 wherever TE reads properties of the device."""
    cuda: Any = torch.cuda
    properties = types.SimpleNamespace(major=9, minor=0, multi_processor_count=132, total_memory=80 << 30, name="H100")
    cuda.get_device_properties = lambda device=None: properties
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.is_current_stream_capturing = lambda: False
    torch.version.cuda = "13.0"

    def is_available() -> bool:
        caller = sys._getframe(1).f_globals["__name__"]
        return caller.startswith("transformer_engine.") or caller in _CONFIGURES_A_GPU

    cuda.is_available = is_available
    torch.Tensor.is_cuda = property(lambda self: not is_on_host(self))  # type: ignore[assignment,method-assign]


def _emulate_module() -> None:
    from support.engine import (  # noqa: F401
        attention,
        context_parallel,
        matrix_products,
        module,
        multi_tensor,
        norms,
        padding,
        quantization,
        rope,
        router,
    )

    sys.modules["transformer_engine_torch"] = module.MODULE


class _WaitsOnce:
    """A communication that can be awaited twice, as TE's ring does; under gloo a second wait would never return."""

    def __init__(self, work: dist.Work) -> None:
        self._work, self._is_over = work, False

    def wait(self) -> bool:
        if not self._is_over:
            self._is_over = self._work.wait()
        return self._is_over


def _wait_for_gloo_once() -> None:
    ring: Any = importlib.import_module("transformer_engine.pytorch.attention.dot_product_attention.context_parallel")
    exchange = ring.flash_attn_p2p_communicate
    ring.flash_attn_p2p_communicate = lambda *arguments: [_WaitsOnce(work) for work in exchange(*arguments)]


def _import_without_library() -> types.ModuleType:
    """Import the package without loading its extension, because the emulation is already in `sys.modules`."""
    spec = importlib.util.find_spec("transformer_engine")
    assert spec is not None and spec.loader is not None, f"{FOLDER} has no transformer_engine: run make test-engine"
    engine = importlib.util.module_from_spec(spec)
    sys.modules["transformer_engine"] = engine
    common: Any = importlib.import_module("transformer_engine.common")
    common.load_framework_extension = lambda framework: None
    spec.loader.exec_module(engine)
    # it was filled by `from transformer_engine_torch import *`, which leaves out what is not emulated
    extensions: Any = importlib.import_module("transformer_engine.pytorch.cpp_extensions")
    extensions.__getattr__ = sys.modules["transformer_engine_torch"].__getattr__
    return engine


def _replace_triton_launchers() -> None:
    from support.engine import permutation

    launchers: Any = importlib.import_module("transformer_engine.pytorch.triton.permutation")
    for name in (
        "make_row_id_map",
        "permute_with_mask_map",
        "unpermute_with_mask_map",
        "make_chunk_sort_map",
        "sort_chunks_by_map",
    ):
        setattr(launchers, name, getattr(permutation, name))


def _take_the_random_state_of_the_cpu() -> None:
    """Make TE's recompute save and restore the random state of the CPU instead of the GPU's."""
    part: Any = importlib.import_module("transformer_engine.pytorch.distributed")
    part._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=True: torch.get_rng_state()
    part._set_cuda_rng_state = lambda state, device=-1, graph_safe=True: torch.set_rng_state(state)


def _accept_float32() -> None:
    """Let the checks of TE's attention take float32 where they name float16, to compare whole models in float32."""

    class TorchWithWideHalf(types.ModuleType):
        float16 = torch.float32

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    for name in ("utils", "backends"):
        part: Any = importlib.import_module(f"transformer_engine.pytorch.attention.dot_product_attention.{name}")
        part.torch = TorchWithWideHalf("torch")
