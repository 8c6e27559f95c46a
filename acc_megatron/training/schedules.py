"""Learning-rate schedules: each is a pure function of the step, registered in SCHEDULES."""

import math
from collections.abc import Callable

from acc_megatron.common.registry import Registry
from acc_megatron.config import OptimizerConfig

# (share of the steps after the warm-up, 0 at its end and 1 at the last step; settings) -> learning rate
Schedule = Callable[[float, OptimizerConfig], float]


def learning_rate(step: int, num_steps: int, settings: OptimizerConfig) -> float:
    """Return the rate of step `step`, counted from 0: a linear warm-up, then `settings.schedule`."""
    warmup = math.ceil(settings.warmup_fraction * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - 1 - warmup)
    return SCHEDULES[settings.schedule](min(1.0, progress), settings)


def cosine(progress: float, settings: OptimizerConfig) -> float:
    """Fall from the highest to the minimum rate along half a cosine (arXiv 1608.03983, without restarts)."""
    high, low = settings.learning_rate, settings.min_learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float, settings: OptimizerConfig) -> float:
    """Fall from the highest to the minimum rate along a line."""
    high, low = settings.learning_rate, settings.min_learning_rate
    return high + (low - high) * progress


def constant(progress: float, settings: OptimizerConfig) -> float:
    """Stay at the highest rate; the minimum rate is not used."""
    return settings.learning_rate


# share of the decay -> share of the way from the minimum to the highest rate; names and formulas of Megatron
DECAY_SHAPES: dict[str, Callable[[float], float]] = {
    "minus_sqrt": lambda share: 1 - math.sqrt(share),
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "exponential": lambda share: 2 * 0.5**share - 1,
}


def wsd(progress: float, settings: OptimizerConfig) -> float:
    """Stay at the highest rate, then fall to the minimum rate in the last steps (arXiv 2404.06395, 2405.18392)."""
    high, low = settings.learning_rate, settings.min_learning_rate
    share = max(0.0, (progress - (1 - settings.decay_fraction)) / settings.decay_fraction)
    return low + (high - low) * DECAY_SHAPES[settings.decay_shape](share)


SCHEDULES: Registry[Schedule] = Registry(
    "optimizer.schedule", {"cosine": cosine, "linear": linear, "constant": constant, "wsd": wsd}
)
