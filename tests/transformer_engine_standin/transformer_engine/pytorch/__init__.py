"""Transformer Engine's public modules, in plain torch."""

from . import distributed, fp8, permutation, router
from .attention import DotProductAttention
from .module import Fp8Padding, Fp8Unpadding, GroupedLinear, LayerNormLinear, Linear, RMSNorm
from .quantization import fp8_autocast, fp8_model_init

__all__ = [
    "DotProductAttention",
    "Fp8Padding",
    "Fp8Unpadding",
    "GroupedLinear",
    "LayerNormLinear",
    "Linear",
    "RMSNorm",
    "distributed",
    "fp8",
    "fp8_autocast",
    "fp8_model_init",
    "permutation",
    "router",
]
