"""The three products of a linear layer: forward, gradient of the input, gradient of the weight."""

from collections.abc import Callable, Mapping, Sequence

import torch

from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.curve import curve
from acc_megatron.plan.machine_file import MeasuredSpeeds


class Gemm:
    """The projection to queries, keys and values."""

    name = "gemm"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample for each number of tokens."""
        return [Sample(f"gemm {tokens}", _products(shapes, tokens, self._columns(shapes))) for tokens in shapes.tokens]

    def _columns(self, shapes: Shapes) -> int:
        return (shapes.heads + 2 * shapes.key_heads) * shapes.head_dim

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter FLOP/s by tokens."""
        flops = 6 * shapes.hidden * self._columns(shapes)
        found.gemm = curve([(tokens, flops * tokens / seconds[f"gemm {tokens}"]) for tokens in shapes.tokens])


def _products(shapes: Shapes, tokens: int, columns: int) -> Callable[[], None]:
    inputs, weight, grad = (
        shapes.random(tokens, shapes.hidden), shapes.random(columns, shapes.hidden), shapes.random(tokens, columns)
    )  # fmt: skip

    def run() -> None:
        torch.matmul(inputs, weight.t())
        torch.matmul(grad, weight)
        torch.matmul(grad.t(), inputs)

    return run
