"""FP8 rounding and every recipe's scaling against a float64 reference written from the formats' definitions."""

import math

import pytest
import torch

from acc_megatron.model.fp8.blockwise import BlockScaling
from acc_megatron.model.fp8.current import CurrentScaling
from acc_megatron.model.fp8.delayed import DelayedScaling
from acc_megatron.model.fp8.mxfp8 import Mxfp8
from acc_megatron.model.fp8.recipe import Fp8Recipe, TensorRole
from acc_megatron.model.fp8.scaling import mx_scale, power_of_two_scale, round_trip, round_trip_blocks, tensor_scale

FORMATS = {torch.float8_e4m3fn: (3, -6, 448.0), torch.float8_e5m2: (2, -14, 57344.0)}
AWKWARD = [(1, 1), (3, 5), (33, 127), (130, 257), (64, 256)]


def nearest(value: float, dtype: torch.dtype) -> float:
    """Return the nearest number of the format, ties to even, saturating at the largest."""
    bits, smallest_exponent, largest = FORMATS[dtype]
    if value == 0:
        return 0.0
    exponent = max(math.frexp(abs(value))[1] - 1, smallest_exponent)
    step = math.ldexp(1.0, exponent - bits)
    rounded = min(round(abs(value) / step) * step, largest)  # Python rounds ties to even
    return math.copysign(rounded, value)


def reference(matrix: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Multiply each value by its scale, round it to the format, and divide again, in float64."""
    scaled = (matrix.double() * scales.double()).flatten().tolist()
    return torch.tensor([nearest(value, dtype) for value in scaled], dtype=torch.float64).view_as(matrix) / scales


def values(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Return values of both signs with magnitudes from 1e-6 to 1e3, and zeros."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(shape, generator=generator) * 10 ** (torch.rand(shape, generator=generator) * 9 - 6)
    return matrix.masked_fill(torch.rand(shape, generator=generator) < 0.05, 0.0)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", AWKWARD)
def test_per_tensor_scaling_follows_its_definition(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = values(shape)
    amax = float(matrix.abs().max())
    scale = torch.tensor(FORMATS[dtype][2] / amax if amax else 1.0, dtype=torch.float32)
    actual = CurrentScaling().quantise(matrix, "input", dtype, along=1, scale=None)
    torch.testing.assert_close(actual.double(), reference(matrix, scale, dtype), rtol=2e-7, atol=0)
    delayed = DelayedScaling().quantise(matrix, "input", dtype, along=1, scale=torch.tensor(0.37))
    torch.testing.assert_close(delayed.double(), reference(matrix, torch.tensor(0.37), dtype), rtol=2e-7, atol=0)


@pytest.mark.parametrize("recipe", [BlockScaling(), Mxfp8()], ids=["blockwise", "mxfp8"])
@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("role", ["input", "weight", "gradient"])
@pytest.mark.parametrize("shape", AWKWARD)
def test_block_scaling_follows_its_definition(
    shape: tuple[int, int], role: TensorRole, along: int, recipe: Fp8Recipe
) -> None:
    matrix, dtype, largest = values(shape), torch.float8_e4m3fn, 448.0
    is_mx = recipe.megatron_name == "mxfp8"
    size = 32 if is_mx else 128
    high, wide = (size, size) if role == "weight" and not is_mx else ((1, size) if along else (size, 1))
    scales = torch.ones(shape, dtype=torch.float64)
    for top in range(0, shape[0], high):
        for left in range(0, shape[1], wide):
            block = (slice(top, top + high), slice(left, left + wide))
            amax = float(matrix[block].abs().max())
            if not amax:
                continue
            if is_mx:  # the smallest power of two at which no value overflows, within E8M0's range
                scales[block] = 2.0 ** -max(-127, min(127, math.ceil(math.log2(amax / largest))))
            else:
                scales[block] = 2.0 ** math.floor(math.log2(largest / amax))
    actual = recipe.quantise(matrix, role, dtype, along=along, scale=None)
    torch.testing.assert_close(actual.double(), reference(matrix, scales, dtype), rtol=0, atol=0)


def test_scales_of_zero_infinity_nan_and_very_small_values_are_finite() -> None:
    amax = torch.tensor([0.0, float("inf"), float("nan"), 1e-44, 448.0, 3e38])
    kept = torch.full((6,), 7.0)
    for dtype in FORMATS:
        scale = tensor_scale(amax, dtype, kept)
        assert scale.isfinite().all() and scale[:3].tolist() == [7.0] * 3
        assert power_of_two_scale(amax[3:], dtype).isfinite().all() and mx_scale(amax[3:], dtype).isfinite().all()
    assert tensor_scale(amax, torch.float8_e4m3fn)[4] == 1.0 and mx_scale(amax, torch.float8_e4m3fn)[4] == 1.0
    # just above a power of two the exponent is rounded up, so that nothing saturates
    assert mx_scale(torch.tensor([448.001]), torch.float8_e4m3fn).item() == 0.5
    assert round_trip(torch.tensor([1e9, -1e9]), torch.tensor(1.0), torch.float8_e4m3fn).tolist() == [448.0, -448.0]
    assert round_trip_blocks(torch.empty(0, 8), (1, 32), torch.float8_e4m3fn, mx_scale).shape == (0, 8)


@pytest.mark.parametrize("recipe", [BlockScaling(), Mxfp8(), CurrentScaling()], ids=["blockwise", "mxfp8", "current"])
def test_rounding_a_rounded_matrix_again_changes_nothing(recipe: Fp8Recipe) -> None:
    once = recipe.quantise(values((64, 256)), "input", torch.float8_e4m3fn, along=1, scale=None)
    again = recipe.quantise(once, "input", torch.float8_e4m3fn, along=1, scale=None)
    torch.testing.assert_close(again, once, rtol=2e-7, atol=0)
