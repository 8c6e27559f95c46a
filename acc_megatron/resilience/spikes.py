"""Detects spikes of loss and gradient norm from previous steps; the state is part of a checkpoint."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from acc_megatron.config import ResilienceConfig
from acc_megatron.errors import TooManySpikes
from acc_megatron.resilience.ended_run import Abandoned

NUM_RECENT = 5
MIN_RELATIVE_DEVIATION = 1e-3  # lower bound of a window's standard deviation, as a share of its mean


class SpikeRule:
    """A step is a spike if its loss or gradient norm is `spike_sigmas` standard deviations above the window's mean.

    The rule applies once half a window is known, as in OLMo-core's SkipStepOptimizer. In contrast to it, a spike never
    enters the window, so a lasting rise ends the run instead of becoming the new mean.
    """

    def __init__(self, settings: ResilienceConfig) -> None:
        self.settings = settings
        self.losses: deque[float] = deque(maxlen=settings.spike_window_steps)
        self.grad_norms: deque[float] = deque(maxlen=settings.spike_window_steps)
        self.recent_losses: deque[float] = deque(maxlen=NUM_RECENT)
        self.skipped: list[int] = []  # steps, counted from 1 as they are logged

    def is_spike(self, loss: float, grad_norm: float) -> bool:
        """Whether a step that is not recorded yet must be skipped."""
        return self._is_far(loss, self.losses) or self._is_far(grad_norm, self.grad_norms)

    def _is_far(self, value: float, window: deque[float]) -> bool:
        sigmas = self.settings.spike_sigmas
        if not sigmas or len(window) < max(2, self.settings.spike_window_steps // 2):
            return False
        mean, deviation = mean_and_deviation(window)
        return value > mean + sigmas * max(deviation, MIN_RELATIVE_DEVIATION * abs(mean))

    def record(self, step: int, loss: float, grad_norm: float, *, skipped: bool) -> None:
        """Record a step that was done or skipped."""
        self.recent_losses.append(loss)
        if skipped:
            self.skipped.append(step)
        else:
            self.losses.append(loss)
            self.grad_norms.append(grad_norm)

    def check(self, step: int) -> None:
        """Raise Abandoned if `step` was skipped and the limit of recent spikes is reached; the same on every rank."""
        limit, recent = self.settings.spike_limit, self.num_recent(step)
        if self.skipped[-1:] == [step] and recent >= limit:
            raise Abandoned(
                TooManySpikes(
                    f"step {step} is spike {recent} within {self.settings.spike_limit_steps} steps, and the limit is "
                    f"{limit}. Skipped steps: {', '.join(map(str, self.skipped[-recent:]))}. This step is saved. "
                    "Look at the documents of these steps in steps.jsonl; reduce optimizer.learning_rate, or increase "
                    "resilience.spike_limit"
                )
            )

    def num_recent(self, step: int) -> int:
        """Spikes among the last `spike_limit_steps` steps up to `step`."""
        return sum(step - self.settings.spike_limit_steps < skipped <= step for skipped in self.skipped)

    def state(self) -> dict[str, Any]:
        """The state as JSON values; floats are restored exactly."""
        return {
            "losses": list(self.losses),
            "grad_norms": list(self.grad_norms),
            "recent_losses": list(self.recent_losses),
            "skipped": self.skipped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`; a window that is now shorter keeps its newest values."""
        for name in ("losses", "grad_norms", "recent_losses"):
            values: deque[float] = getattr(self, name)
            values.clear()
            values.extend(state[name])
        self.skipped = list(state["skipped"])


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and population standard deviation, with exact sums."""
    known = list(values)
    mean = math.fsum(known) / len(known)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
