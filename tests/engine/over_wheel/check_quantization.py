"""FP8 casts through TE's own quantizers: against TE's reference in Python, the CPU spec's emulation, and loops."""

from support.engine.install import install

install()  # here and not in a conftest.py, which pytest would also load in the process that collects the tests

import pytest  # noqa: E402
import torch  # noqa: E402
from support.engine import matrix_products, quantization  # noqa: E402
from transformer_engine.pytorch import (  # noqa: E402
    Float8BlockQuantizer,
    Float8CurrentScalingQuantizer,
    Float8Quantizer,
)
from transformer_engine.pytorch.constants import TE_DType  # noqa: E402

from acc_megatron.model.fp8.scaling import power_of_two_scale, round_trip_blocks  # noqa: E402

TYPES = (torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def values(*shape: int) -> torch.Tensor:
    """Numbers over several powers of two, with a block of zeros."""
    x = torch.randn(*shape) * torch.exp2(torch.randint(-6, 6, shape).float())
    x[..., :16] = 0
    return x


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("internal", [False, True])
def test_current_scaling_maps_the_largest_value_to_the_formats_largest(dtype: torch.dtype, internal: bool) -> None:
    quantizer = Float8CurrentScalingQuantizer(TE_DType[dtype], torch.device("cpu"))
    quantizer.internal = internal
    x = values(3, 48, 32)
    quantized = quantizer(x)
    scale = torch.finfo(dtype).max / x.abs().max()
    expected = (x.double() * scale.double()).float().clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    assert torch.equal(quantized._data.view(dtype).float(), expected.float())
    assert torch.equal(quantized._transpose.view(dtype).float(), expected.float().movedim(-1, 0))
    torch.testing.assert_close(quantized.dequantize(), expected.float() / scale)


def test_delayed_scaling_casts_with_the_given_scale_and_keeps_the_largest_value_seen() -> None:
    scale, amax = torch.tensor([2.0]), torch.zeros(1)
    quantizer = Float8Quantizer(scale, amax, TE_DType[torch.float8_e4m3fn], columnwise=False)
    for x, seen in ((values(16, 16), None), (torch.full((16, 16), 1000.0), 1000.0), (torch.ones(16, 16), 1000.0)):
        expected = (x * 2).clamp(-448, 448).to(torch.float8_e4m3fn).float() / 2
        quantized = quantizer(x)
        assert torch.equal(quantized.dequantize(), expected) and quantized._transpose is None
        assert amax.item() == (seen or x.abs().max().item())


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("shape", [(128, 256), (48, 80), (3, 48, 160)])
def test_blocks_are_scaled_as_the_cpu_spec_emulates_them(square: bool, shape: tuple[int, ...]) -> None:
    quantizer = Float8BlockQuantizer(
        TE_DType[torch.float8_e4m3fn], rowwise=True, columnwise=True, block_scaling_dim=2 if square else 1
    )
    x = values(*shape)
    quantized, matrix = quantizer(x), x.flatten(0, -2)
    for columnwise in (False, True):
        block = (128, 128) if square else ((128, 1) if columnwise else (1, 128))
        expected = round_trip_blocks(matrix, block, torch.float8_e4m3fn, power_of_two_scale)
        assert torch.equal(quantization.operand(quantized, columnwise=columnwise).flatten(0, -2), expected)
    assert torch.equal(quantized.dequantize(), quantization.operand(quantized, columnwise=False).view(shape))


def test_a_set_noop_flag_leaves_the_output_as_it_is() -> None:
    quantizer = Float8CurrentScalingQuantizer(TE_DType[torch.float8_e4m3fn], torch.device("cpu"))
    output = quantizer(torch.ones(16, 16))
    for flag, expected in ((1.0, 1.0), (0.0, 3.0)):
        quantization.quantize(torch.full((16, 16), 3.0), quantizer, output, torch.tensor([flag]))
        torch.testing.assert_close(output.dequantize(), torch.full((16, 16), expected))


def test_parts_are_quantized_each_under_its_own_scale() -> None:
    quantizers = [Float8CurrentScalingQuantizer(TE_DType[torch.float8_e4m3fn], torch.device("cpu")) for _ in range(3)]
    x = values(48, 16)
    parts = quantization.split_quantize(x, [16, 0, 32], quantizers)
    for part, source in zip(parts, x.split([16, 0, 32]), strict=True):
        if len(source):
            assert torch.equal(part.dequantize(), quantizers[0](source).dequantize())


@pytest.mark.parametrize("layout", ["TN", "NN", "NT"])
def test_fp8_products_read_the_form_that_their_layout_needs(layout: str) -> None:
    def quantized(rows: int, columns: int, *, rowwise: bool) -> torch.Tensor:
        quantizer = Float8BlockQuantizer(
            TE_DType[torch.float8_e4m3fn], rowwise=rowwise, columnwise=not rowwise, block_scaling_dim=1
        )
        return quantizer(torch.randn(rows, columns))

    shapes = {"TN": ((48, 32), (64, 32)), "NN": ((32, 48), (64, 32)), "NT": ((32, 48), (32, 64))}[layout]
    a = quantized(*shapes[0], rowwise=layout[0] == "T")
    b = quantized(*shapes[1], rowwise=layout[1] == "N")
    arguments = (None, None, TE_DType[torch.float32], None, None, False, None, False, torch.empty(0), 0, False, True)
    out = matrix_products.generic_gemm(a, layout[0] == "T", b, layout[1] == "T", *arguments)[0]
    left, right = a.dequantize().double(), b.dequantize().double()
    expected = (right.T if layout[1] == "T" else right) @ (left.T if layout[0] == "T" else left)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    wrong = quantized(*shapes[0], rowwise=layout[0] != "T")
    with pytest.raises(AssertionError, match=r"missing (row|column)-wise usage"):
        matrix_products.generic_gemm(wrong, layout[0] == "T", b, layout[1] == "T", *arguments)


@pytest.mark.parametrize("algorithm", ["max", "most_recent"])
def test_histories_move_on_and_give_scales_as_tes_own_python_computes_them(algorithm: str) -> None:
    from transformer_engine.common.recipe import DelayedScaling
    from transformer_engine.pytorch.quantization import _default_get_amax_and_update_history, _default_sf_compute

    recipe = DelayedScaling(amax_history_len=4, amax_compute_algo=algorithm)
    histories, scales = [torch.rand(4, 3), torch.rand(4, 2)], [torch.ones(3), torch.ones(2)]
    amax = torch.rand(5) * 8
    expected = []
    for history, scale, latest in zip(histories, scales, amax.split([3, 2]), strict=True):
        copy = history.clone()
        copy[0] = latest
        rolled, chosen = _default_get_amax_and_update_history(copy, algorithm)
        expected.append((rolled, _default_sf_compute(chosen, scale.clone(), 448.0, recipe.margin)))
    update = quantization.fused_amax_and_scale_update_after_reduction
    update(amax, histories, scales, algorithm, TE_DType[torch.float8_e4m3fn], recipe.margin)
    for (history, scale), found, found_scale in zip(expected, histories, scales, strict=True):
        torch.testing.assert_close(found, history)
        torch.testing.assert_close(found_scale, scale)


def test_a_tensor_that_was_never_cast_keeps_history_and_scale() -> None:
    history, scale = torch.zeros(4, 1), torch.tensor([3.0])
    history[2] = 5.0
    update = quantization.fused_amax_and_scale_update_after_reduction
    update(torch.zeros(1), [history], [scale], "max", TE_DType[torch.float8_e4m3fn], 0)
    assert history[2] == 5.0 and scale == 3.0
