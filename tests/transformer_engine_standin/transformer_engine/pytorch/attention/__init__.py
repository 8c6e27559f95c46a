"""Attention and rotary positions."""

from . import rope
from .dot_product_attention import DotProductAttention

__all__ = ["DotProductAttention", "rope"]
