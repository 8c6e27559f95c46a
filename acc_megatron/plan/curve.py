"""A speed that depends on the size of the work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """Speeds at increasing sizes, linear in the logarithm of the size between them and constant beyond both ends."""

    sizes: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        assert self.sizes and len(self.sizes) == len(self.values) and list(self.sizes) == sorted(set(self.sizes))

    def at(self, size: float) -> float:
        """The speed at `size`."""
        if size <= self.sizes[0]:
            return self.values[0]
        for low, high, first, last in zip(self.sizes, self.sizes[1:], self.values, self.values[1:], strict=False):
            if size <= high:
                return first + (last - first) * math.log(size / low) / math.log(high / low)
        return self.values[-1]

    def times(self, factor: float) -> "Curve":
        """All speeds multiplied by `factor`."""
        return Curve(self.sizes, tuple(value * factor for value in self.values))


def constant(value: float) -> Curve:
    """A speed that does not depend on the size."""
    return Curve((1,), (value,))


def curve(points: Sequence[tuple[float, float]]) -> Curve:
    """A curve through `(size, speed)` points in any order."""
    ordered = sorted(points)
    return Curve(tuple(size for size, _ in ordered), tuple(value for _, value in ordered))
