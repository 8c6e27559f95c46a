"""Differences relative to the norm of a reference, their bounds, and the error that names what exceeds one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from acc_megatron.selftest.check import CheckFailed


@dataclass(frozen=True)
class Bounds:
    """The largest allowed difference by name."""

    limits: Mapping[str, float]


def relative_difference(got: torch.Tensor, truth: torch.Tensor) -> float:
    """Return |got - truth| / |truth| in float64; infinity if `got` is not finite, the absolute norm if truth is 0."""
    difference = float((got.double() - truth.double()).norm())
    scale = float(truth.double().norm()) or 1.0
    return difference / scale if difference == difference else float("inf")


def require(name: str, difference: float, limit: float, what: str, figures: dict[str, float]) -> None:
    """Keep the largest difference of each name in `figures`; raises CheckFailed above the limit, or if it is NaN."""
    if not difference <= limit:
        raise CheckFailed(f"{what}: {name} differs by {difference:.2e}, the limit is {limit:.0e}")
    figures[name] = max(difference, figures.get(name, 0.0))


def require_within(
    bounds: Bounds, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]], what: str, figures: dict[str, float]
) -> None:
    """Compare tensors by name with their references; raises CheckFailed for the first that exceeds its bound."""
    for name, (got, truth) in pairs.items():
        require(name, relative_difference(got, truth), bounds.limits[name], what, figures)
