"""FP8 casts, scales and transposes. TE's own quantizers choose the format; these functions compute the values.

A quantizer is one of TE's classes: `Float8Quantizer` (delayed scaling), `Float8CurrentScalingQuantizer` or
`Float8BlockQuantizer`. Values beyond the largest of the format saturate. Formulas are those of TE's CUDA sources
`recipe_common.cuh`, `delayed_scaling.cu` and `quantizer.cpp`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from support.engine.module import emulated, torch_dtype

_BLOCK = 128


def _kind(quantizer: Any) -> str:
    return type(quantizer).__name__


def _cast(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`x * scale` in FP8, saturated, as bytes."""
    largest = torch.finfo(dtype).max
    return (x.float() * scale).clamp(-largest, largest).to(dtype).view(torch.uint8)


def scale_from_amax(amax: torch.Tensor, quantizer: Any, largest_scale: float) -> torch.Tensor:
    """largest / amax in float32, or the power of two at or below it; 1 for an amax of 0, inf or nan."""
    amax = amax.clamp(min=quantizer.amax_epsilon)
    usable = (amax > 0) & amax.isfinite()
    scale = (torch.finfo(torch_dtype(quantizer.dtype)).max / amax).clamp(max=largest_scale)
    if quantizer.force_pow_2_scales:
        _, exponent = torch.frexp(scale)
        scale = torch.ldexp(torch.ones_like(scale), exponent - 1)
    return torch.where(usable, scale, torch.ones_like(scale))


def _transpose(data: torch.Tensor) -> torch.Tensor:
    """`[..., K]` as `[K, ...]`, the form of column-wise data."""
    return data.movedim(-1, 0).contiguous()


@emulated
def create_empty_quantized_tensor(
    quantizer: Any, shape: Sequence[int], dtype: torch.dtype, device: Any, pin_memory: bool
) -> Any:
    """A tensor of the quantizer's class with uninitialized data in the forms that its usage asks for."""
    shape = torch.Size(shape)
    data = torch.empty(shape, dtype=torch.uint8) if quantizer.rowwise_usage else None
    transposed = torch.empty((shape[-1], *shape[:-1]), dtype=torch.uint8) if quantizer.columnwise_usage else None
    settings: dict[str, Any] = {"fp8_dtype": quantizer.dtype, "quantizer": quantizer}
    if quantizer.internal:
        settings["fake_dtype"] = dtype
    else:
        settings |= {"shape": shape, "dtype": dtype, "device": torch.device("cpu")}
    if _kind(quantizer) == "Float8BlockQuantizer":
        from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockwiseQTensor
        from transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage import (
            Float8BlockwiseQTensorStorage,
        )

        scales = [
            torch.empty(quantizer.get_scale_shape(shape, columnwise=columnwise)) if used else None
            for columnwise, used in ((False, quantizer.rowwise_usage), (True, quantizer.columnwise_usage))
        ]
        block_class = Float8BlockwiseQTensorStorage if quantizer.internal else Float8BlockwiseQTensor
        return block_class(
            rowwise_data=data,
            rowwise_scale_inv=scales[0],
            columnwise_data=transposed,
            columnwise_scale_inv=scales[1],
            is_2D_scaled=quantizer.block_scaling_dim == 2,
            **settings,
        )
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Tensor
    from transformer_engine.pytorch.tensor.storage.float8_tensor_storage import Float8TensorStorage

    tensor_class = Float8TensorStorage if quantizer.internal else Float8Tensor
    return tensor_class(data=data, fp8_scale_inv=torch.ones(1), data_transpose=transposed, **settings)


@emulated
def quantize(tensor: torch.Tensor, quantizer: Any, output: Any = None, noop: torch.Tensor | None = None) -> Any:
    """Cast to FP8 with the quantizer, into `output` if it is given; if `noop` is set, `output` does not change."""
    x = tensor.detach().contiguous()
    if output is None:
        output = create_empty_quantized_tensor(quantizer, x.shape, x.dtype, x.device, False)
    if not x.numel() or (noop is not None and noop.item()):
        return output
    if _kind(quantizer) == "Float8BlockQuantizer":
        _fill_blocks(x, quantizer, output)
        return output
    if _kind(quantizer) == "Float8CurrentScalingQuantizer":
        amax = x.abs().amax().float().reshape(1)
        if quantizer.with_amax_reduction:
            dist.all_reduce(amax, op=dist.ReduceOp.MAX, group=quantizer.amax_reduction_group)
        scale = scale_from_amax(amax, quantizer, torch.finfo(torch.float32).max)
    else:
        assert _kind(quantizer) == "Float8Quantizer", f"{_kind(quantizer)} is not emulated"
        quantizer.amax.copy_(torch.maximum(quantizer.amax, x.abs().amax().float()))
        scale = quantizer.scale
    data = _cast(x, scale, torch_dtype(quantizer.dtype))
    output._scale_inv.copy_(1 / scale)
    if output._data is not None:
        output._data.copy_(data)
    if output._transpose is not None:
        output._transpose.copy_(_transpose(data))
        output._transpose_invalid = False
    return output


def _fill_blocks(x: torch.Tensor, quantizer: Any, output: Any) -> None:
    """Fill row-wise data with scales along the last dim and column-wise data with scales along the other dims."""
    matrix = x.flatten(0, -2) if x.dim() > 1 else x[None]
    is_square = quantizer.block_scaling_dim == 2
    for source, data, scale_inv in (
        (matrix, output._rowwise_data, output._rowwise_scale_inv),
        (matrix.T, output._columnwise_data, output._columnwise_scale_inv),
    ):
        if data is None:
            continue
        cast, inverse = _cast_blocks(source, _BLOCK if is_square else 1, quantizer, x.dtype)
        inverse = inverse if is_square else inverse.T  # tiles first, as the GEMM reads them
        data.copy_(cast.view_as(data))
        scale_inv.zero_()
        scale_inv[: inverse.shape[0], : inverse.shape[1]] = inverse


def _cast_blocks(
    matrix: torch.Tensor, block_rows: int, quantizer: Any, input_dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(bytes [R, C], inverse scales [blocks of rows, blocks of columns])` in blocks of `block_rows` x 128."""
    rows, columns = matrix.shape
    padded = F.pad(matrix.float(), (0, -columns % _BLOCK, 0, -rows % block_rows))
    blocks = padded.unflatten(0, (-1, block_rows)).unflatten(2, (-1, _BLOCK))
    amax = blocks.abs().amax((1, 3), keepdim=True)
    scale = scale_from_amax(amax, quantizer, torch.finfo(input_dtype).max)
    cast = _cast(blocks, scale, torch_dtype(quantizer.dtype)).view_as(padded)
    return cast[:rows, :columns].contiguous(), (1 / scale)[:, 0, :, 0]


@emulated
def split_quantize(
    tensor: torch.Tensor,
    split_sections: Sequence[int],
    quantizer_list: Sequence[Any],
    disable_bulk_allocation: bool = False,
) -> list[Any]:
    """Each part of dim 0 under its own quantizer."""
    parts = tensor.split(list(split_sections))
    return [quantize(part, quantizer) for part, quantizer in zip(parts, quantizer_list, strict=True)]


@emulated
def fp8_transpose(input: torch.Tensor, dtype: Any, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """The bytes of `[..., K]` as `[K, ...]`."""
    transposed = _transpose(input)
    return transposed if out is None else out.copy_(transposed)


@emulated
def fused_amax_and_scale_update_after_reduction(
    amax_reduction_buffer: torch.Tensor,
    amax_histories: Sequence[torch.Tensor],
    scales: Sequence[torch.Tensor],
    amax_compute_algo: str,
    fp8_dtype: Any,
    margin: float,
) -> None:
    """Append the reduced amax of every tensor to its history `[steps, tensors]` and update the scales, in place."""
    largest = torch.finfo(torch_dtype(fp8_dtype)).max * 2.0**-margin
    reduced = amax_reduction_buffer.split([len(scale) for scale in scales])
    for history, scale, amax in zip(amax_histories, scales, reduced, strict=True):
        last = torch.where(amax != 0, amax, history[0])
        rolled = torch.cat((history[1:], last[None]))
        chosen = rolled.amax(0) if amax_compute_algo == "max" else last
        seen = last != 0  # a tensor that was never cast keeps its history and its scale
        new = torch.where(seen, rolled, history)
        new[0] = torch.where(seen, torch.zeros_like(last), history[0])
        history.copy_(new)
        usable = seen & chosen.isfinite() & (chosen > 0)
        scale.copy_(torch.where(usable, (largest / chosen).clamp(max=torch.finfo(torch.float32).max), scale))


def operand(tensor: Any, *, columnwise: bool) -> torch.Tensor:
    """Return an operand in float32 and its logical shape, from the data that a GEMM on Hopper would read.

    Hopper multiplies FP8 in one layout only. If the data for it is missing, that is an error, as in cuBLAS.
    """
    form = "column-wise" if columnwise else "row-wise"
    if hasattr(tensor, "_transpose_invalid"):  # Float8TensorStorage or Float8Tensor
        data = (
            tensor._transpose if columnwise and not tensor._transpose_invalid else None if columnwise else tensor._data
        )
        assert data is not None, f"an operand is missing {form} usage"
        values = data.view(torch_dtype(tensor._fp8_dtype)).float() * tensor._scale_inv
        values = values.movedim(0, -1) if columnwise else values
    elif hasattr(tensor, "_is_2D_scaled"):  # Float8BlockwiseQTensorStorage or Float8BlockwiseQTensor
        from transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage import (
            Float8BlockwiseQTensorStorage,
        )

        named = "columnwise" if columnwise else "rowwise"
        data = getattr(tensor, f"_{named}_data")
        assert data is not None, f"an operand is missing {form} usage"
        kept: dict[str, Any] = {
            f"{kind}_{part}": None for kind in ("rowwise", "columnwise") for part in ("data", "scale_inv")
        }
        kept |= {f"{named}_data": data, f"{named}_scale_inv": getattr(tensor, f"_{named}_scale_inv")}
        one_form = Float8BlockwiseQTensorStorage(
            **kept, fp8_dtype=tensor._fp8_dtype, quantizer=tensor._quantizer, is_2D_scaled=tensor._is_2D_scaled
        )
        values = one_form.dequantize(dtype=torch.float32)
    else:
        return tensor.float()
    summed = values.flatten(0, -2).shape[0 if columnwise else 1]
    assert summed % 16 == 0, f"an FP8 product sums over {summed} values: cuBLAS needs a multiple of 16"
    return values
