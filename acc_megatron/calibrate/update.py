"""The update of the weights: gradient norm, clipping, and the optimizer's step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.machine_file import MeasuredSpeeds
from acc_megatron.training.optimizers import OPTIMIZERS

# weight and moments are read and written, the gradient is read; all are float32
UPDATE_BYTES_PER_PARAMETER = 7 * 4
MAX_PARAMETERS = 1 << 27  # a larger update has the same speed


class Update:
    """AdamW on the weights of one layer's experts and attention, in float32."""

    name = "update"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """One sample."""
        if not torch.cuda.is_available():
            OPTIMIZERS["adamw"].prepare_cpu()
        import megatron.core.optimizer as megatron

        parameters = [
            torch.nn.Parameter(torch.randn(*size, device=shapes.device), requires_grad=True) for size in _sizes(shapes)
        ]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        adam: Any = megatron
        optimizer = adam.Adam(parameters, lr=1e-4, weight_decay=0.1)

        def run() -> None:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.zero_()

        return [Sample("update", run)]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter bytes per second, for the bytes that a fused update needs."""
        count = sum(rows * columns for rows, columns in _sizes(shapes))
        found.update_bytes_per_second = UPDATE_BYTES_PER_PARAMETER * count / seconds["update"]


def _sizes(shapes: Shapes) -> list[tuple[int, int]]:
    columns = (2 * shapes.heads + 2 * shapes.key_heads) * shapes.head_dim
    expert = 3 * shapes.expert_ffn * shapes.hidden
    count = max(1, min(shapes.experts, MAX_PARAMETERS // max(1, expert)))
    return [(columns, shapes.hidden), *[(3 * shapes.expert_ffn, shapes.hidden)] * (count if expert else 0)]
