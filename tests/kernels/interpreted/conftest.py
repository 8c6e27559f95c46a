"""Fixes the interpreter of this process, and uses large tiles for float32."""

import pytest
import torch

from acc_megatron.kernels.shared import triton_interpreter

triton_interpreter.install()


@pytest.fixture(autouse=True)
def _large_float32_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the interpreter grows with the number of tiles, and the GPU's tiles for float32 are small."""
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    monkeypatch.setattr(launch, "FLOAT32", launch.HOPPER)
    torch.set_num_threads(1)
