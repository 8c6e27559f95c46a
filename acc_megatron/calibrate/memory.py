"""Memory bandwidth of an operation that reads two tensors and writes a third one, newly allocated."""

from collections.abc import Mapping, Sequence

from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.machine_file import MeasuredSpeeds


class Memory:
    """The product of two tensors with the size of a row's residual stream."""

    name = "memory"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample."""
        first, second = (shapes.random(shapes.tokens[-1], shapes.hidden) for _ in range(2))
        return [Sample("memory", lambda: first * second)]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter bytes per second."""
        num_bytes = 3 * shapes.tokens[-1] * shapes.hidden * shapes.element_bytes
        found.memory_bytes_per_second = num_bytes / seconds["memory"]
