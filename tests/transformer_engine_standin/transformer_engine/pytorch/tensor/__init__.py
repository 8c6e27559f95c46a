"""Tensors in FP8."""

from ..quantized_tensor import QuantizedTensor

__all__ = ["QuantizedTensor"]
