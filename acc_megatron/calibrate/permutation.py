"""The way of tokens to their experts and back, without communication."""

from collections.abc import Mapping, Sequence

import torch

from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.machine_file import MeasuredSpeeds


class Permutation:
    """Rows of the residual stream are copied in random order, and added up again."""

    name = "permutation"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample."""
        tokens = shapes.tokens[-1]
        stream, out = (shapes.random(tokens, shapes.hidden) for _ in range(2))
        order = torch.randperm(tokens * shapes.experts_per_token, device=shapes.device) % tokens
        return [Sample("permutation", lambda: out.index_add_(0, order, stream.index_select(0, order)))]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter bytes per second: two accesses to copy, three to add."""
        rows = shapes.tokens[-1] * shapes.experts_per_token
        found.permutation_bytes_per_second = 5 * rows * shapes.hidden * shapes.element_bytes / seconds["permutation"]
