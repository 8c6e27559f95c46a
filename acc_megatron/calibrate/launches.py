"""The time that a layer needs for hardly any work: that of the host, to launch its operations."""

from collections.abc import Mapping, Sequence

from acc_megatron.calibrate.layer import Layer, both_passes
from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.machine_file import MeasuredSpeeds

FEW_TOKENS = 16


class Launches:
    """Forward and backward pass of one layer on a few tokens."""

    name = "launches"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample."""
        layer = Layer(shapes.config)
        hidden = shapes.random(FEW_TOKENS, 1, shapes.hidden, requires_grad=True)
        return [Sample("launches", lambda: both_passes(layer.forward(hidden), [hidden, *layer.weights]))]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter the seconds of a forward pass: a backward pass launches about twice as many operations."""
        found.host_seconds_per_layer = seconds["launches"] / 3
