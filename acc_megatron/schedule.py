"""The learning rate as a pure function of the step."""

import math

from acc_megatron.config import OptimizerConfig


def learning_rate(step: int, num_steps: int, optimizer: OptimizerConfig) -> float:
    """The rate of step `step` (from 0): linear warm-up, then a cosine down to the minimum at the last step."""
    peak, low = optimizer.learning_rate, optimizer.min_learning_rate
    warmup = math.ceil(optimizer.warmup_fraction * num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - 1 - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
