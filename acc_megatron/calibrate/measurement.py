"""One kind of measurement: what it runs, and what the times say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.machine_file import MeasuredSpeeds


@dataclass(frozen=True, slots=True)
class Sample:
    """A call whose seconds are measured in every round."""

    name: str  # unique
    run: Callable[[], object]


class Measurement(Protocol):
    """A kind of measurement; implementations keep nothing between calls."""

    name: str

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """Allocate the tensors and return the calls; every rank returns the same names in the same order."""

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter the speeds into `found`; `seconds` has the median of each sample, averaged over the ranks."""
