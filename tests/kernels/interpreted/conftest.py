"""A process that interprets, repaired; problems and the plain code that kernels are held to."""

import pytest
import torch

from acc_megatron.kernels import interpreter

interpreter.install()


@pytest.fixture(autouse=True)
def _large_float32_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time follows the number of tiles; those of the GPU for float32 are small."""
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    monkeypatch.setattr(launch, "FLOAT32", launch.HOPPER)
    torch.set_num_threads(1)
