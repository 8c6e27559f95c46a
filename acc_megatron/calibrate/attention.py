"""Attention of one document, forward and backward, by its length."""

from collections.abc import Mapping, Sequence

import torch

from acc_megatron.calibrate.layer import Layer, both_passes
from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.curve import curve
from acc_megatron.plan.layer_time import BACKWARD_ATTENTION
from acc_megatron.plan.machine_file import MeasuredSpeeds


class Attention:
    """The core attention of the layer that training builds."""

    name = "attention"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """Two samples for each length: forward, and forward with backward."""
        layer = Layer(shapes.config)
        return [sample for tokens in shapes.tokens for sample in _samples(shapes, layer, tokens)]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter FLOP/s by length, for causal attention: half of the square."""
        forward, backward = [], []
        for tokens in shapes.tokens:
            flops = 2 * shapes.heads * shapes.head_dim * tokens**2
            first, both = seconds[f"attention {tokens}"], seconds[f"attention with backward {tokens}"]
            forward.append((tokens, flops / first))
            # a measured difference can be too small by chance, but backward is never faster than forward
            backward.append((tokens, BACKWARD_ATTENTION * flops / max(first, both - first)))
        found.attention_forward, found.attention_backward = curve(forward), curve(backward)


def _samples(shapes: Shapes, layer: Layer, tokens: int) -> list[Sample]:
    tensors = [
        shapes.random(tokens, heads, shapes.head_dim, requires_grad=True)
        for heads in (shapes.heads, shapes.key_heads, shapes.key_heads)
    ]

    def forward() -> None:
        with torch.no_grad():
            layer.attend(*tensors)

    return [
        Sample(f"attention {tokens}", forward),
        Sample(f"attention with backward {tokens}", lambda: both_passes(layer.attend(*tensors), tensors)),
    ]
