"""GEMM and grouped GEMM: operands dequantized, products in float32, one rounding to the output's dtype.

cuBLAS reads column-major matrices, so `A` is the weight in a forward pass: the output is `B @ A.T` for `transA`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from support.engine.module import emulated, torch_dtype
from support.engine.quantization import operand, quantize


def _product(a: Any, transposes_a: bool, b: Any, transposes_b: bool) -> torch.Tensor:
    """Return the product in float32; FP8 operands are read in the form that the layout needs."""
    left = operand(b, columnwise=transposes_b).flatten(0, -2)
    right = operand(a, columnwise=not transposes_a).flatten(0, -2)
    return (left.T if transposes_b else left) @ (right.T if transposes_a else right)


def _store(product: torch.Tensor, out: torch.Tensor, accumulate: bool) -> None:
    product = product.view_as(out)
    out.copy_(out.float() + product if accumulate else product)


@emulated
def generic_gemm(
    A: Any,
    transA: bool,
    B: Any,
    transB: bool,
    D: torch.Tensor | None,
    quantizer: Any,
    output_dtype: Any,
    bias: torch.Tensor | None,
    bias_type: Any,
    gelu: bool,
    gelu_in: Any,
    grad: bool,
    workspace: torch.Tensor,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    comm_overlap: Any = None,
    comm_type: Any = None,
    extra_output: Any = None,
    bulk_overlap: bool = False,
    alpha: float = 1.0,
    beta: float | None = None,
) -> tuple[Any, None, None, None]:
    """Return `(output, bias gradient, gelu input, extra output)`; the last three are always None."""
    assert not gelu and comm_overlap is None and (bias is None or not bias.numel())
    product = _product(A, transA, B, transB) * alpha
    if D is not None:
        _store(product, D, accumulate)
        return D, None, None, None
    out: Any = product.to(torch_dtype(output_dtype, getattr(A, "dtype", None)))
    out = out if transB else out.view(*B.size()[:-1], out.shape[-1])
    return (out if quantizer is None else quantize(out, quantizer)), None, None, None


@emulated
def te_general_grouped_gemm(
    A: Sequence[Any],
    transA: bool,
    B: Sequence[Any],
    transB: bool,
    D: Sequence[torch.Tensor],
    D_type: Any,
    m_splits: Sequence[int],
    bias: Any,
    bias_type: Any,
    single_output: bool,
    pre_gelu_out: Any,
    grad: bool,
    workspace: Any,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    math_sm_count: int,
) -> Any:
    """Multiply each pair of A and B into D; with `single_output`, D has one tensor, split by `m_splits`."""
    outputs = list(D[0].split(list(m_splits))) if single_output else D
    for a, b, out in zip(A, B, outputs, strict=True):
        if not out.numel():
            continue
        if 0 in a.size() or 0 in b.size():
            _store(out.new_zeros(out.shape, dtype=torch.float32), out, accumulate)
        else:
            _store(_product(a, transA, b, transB), out, accumulate)
    return bias
