"""Every kernel on the GPU against float64: dtypes, awkward shapes and memory modes, on memory filled with NaN."""

from collections.abc import Callable

import pytest
import torch
from support.gpu_problems import MODES, Shape, make_on, run
from support.loss_problems import assert_no_worse, assert_within_bounds, error, plain

pytestmark = pytest.mark.gpu

SMALL = {
    "odd sizes": Shape(301, 97, 1009, 80),
    "one row": Shape(97, 1, 1009, 80),
    "no row": Shape(64, 0, 1009, 80),
    "all rows, primes": Shape(131, 131, 2039, 80),
    "smaller than a tile": Shape(5, 3, 7, 80),
}
LARGE = {
    "a shard of eight": Shape(9000, 1311, 18992, 2048),
    "a shard of two, rows a multiple of 16": Shape(8192, 656, 75968, 2048),
    "vocabulary not a multiple of 16": Shape(700, 333, 37917, 2048),
    "four windows, all rows": Shape(2051, 2051, 25013, 2048),
}
SHAPES = SMALL | LARGE if torch.cuda.is_available() else SMALL


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("with_buffer", [False, True])
@pytest.mark.parametrize("memory_mode", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", SHAPES)
def test_results_are_as_exact_as_plain_torch(
    name: str, dtype: torch.dtype, memory_mode: str, with_buffer: bool, device: str
) -> None:
    problem = make_on(device, SHAPES[name], dtype)
    assert_no_worse(run(problem, memory_mode, with_buffer=with_buffer), problem, 1e-3)


@pytest.mark.parametrize("in_library", [False, True])
@pytest.mark.parametrize("memory_mode", MODES)
def test_both_memory_modes_and_both_gradient_products_agree_with_float64_to_the_same_bounds(
    memory_mode: str, in_library: bool, device: str, record: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    if in_library and not launch.LIBRARY_PRODUCTS:
        pytest.skip(f"torch {torch.__version__} has no addmm with out_dtype")
    monkeypatch.setattr(launch, "LIBRARY_PRODUCTS", in_library)
    shape = Shape(2048, 512, 32768, 2048) if device == "cuda" else Shape(40, 20, 700, 64)
    problem = make_on(device, shape, torch.bfloat16)
    truth = plain(problem, torch.float64, 0.0)
    got = run(problem, memory_mode, with_buffer=True, z_loss=0.0)
    difference = got.log_probability.double() - truth.log_probability
    figures = {
        "log_probability_rms": difference.square().mean().sqrt().item(),
        "log_probability_max": difference.abs().max().item(),
        "hidden": error(got.hidden, truth.hidden),
        "weight": error(got.weight, truth.weight),
    }
    record(memory_mode, in_library=in_library, shape=shape._asdict(), **figures)
    assert_within_bounds(got, problem, 0.0)
