"""FP8 recipes: their fields; unknown arguments are dropped, as the original's pydantic dataclasses do."""

from enum import Enum
from typing import Any

from pydantic.dataclasses import dataclass


class Format(Enum):
    """Types of the operands: e4m3 throughout, or e5m2 for gradients of outputs."""

    E4M3 = "e4m3"
    HYBRID = "hybrid"


class Recipe:
    """Base of every recipe."""


@dataclass
class DelayedScaling(Recipe):
    """Scales of the past largest values."""

    margin: int = 0
    fp8_format: Format = Format.HYBRID
    amax_history_len: int = 1024
    amax_compute_algo: Any = "max"
    fp8_dpa: bool = False
    fp8_mha: bool = False


@dataclass
class Float8CurrentScaling(Recipe):
    """A scale a tensor, of its own largest value."""

    fp8_format: Format = Format.HYBRID
    fp8_dpa: bool = False
    fp8_mha: bool = False


@dataclass
class MXFP8BlockScaling(Recipe):
    """A power of two every 32 values."""

    margin: int = 0
    fp8_format: Format = Format.E4M3
    fp8_dpa: bool = False
    fp8_mha: bool = False


@dataclass
class Float8BlockScaling(Recipe):
    """A power of two every 128 values, or every 128 x 128 of a weight."""

    fp8_format: Format = Format.E4M3
    fp8_dpa: bool = False
    fp8_mha: bool = False
