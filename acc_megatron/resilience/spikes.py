"""Which steps are spikes: a rule over the loss and gradient norm of the steps before, saved with the run."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from acc_megatron.config import ResilienceConfig
from acc_megatron.errors import TooManySpikes
from acc_megatron.resilience.abandoned import Abandoned

NUM_RECENT = 5
NOISE = 1e-3  # a window so flat that its deviation is below this share of its mean counts as having that deviation


class SpikeRule:
    """A value further than `spike_sigmas` deviations above the mean of its window is a spike, and its step is skipped.

    Judged once half a window is known, as OLMo-core's SkipStepOptimizer does; unlike there a spike never enters the
    window, so that a lasting rise is not taken for the new normal but ends the run.
    """

    def __init__(self, settings: ResilienceConfig) -> None:
        self.settings = settings
        self.losses: deque[float] = deque(maxlen=settings.spike_window_steps)
        self.grad_norms: deque[float] = deque(maxlen=settings.spike_window_steps)
        self.recent_losses: deque[float] = deque(maxlen=NUM_RECENT)
        self.skipped: list[int] = []  # steps, counted from 1 as they are logged

    def is_spike(self, loss: float, grad_norm: float) -> bool:
        """Whether this step, not yet recorded, is to be skipped."""
        return self._is_far(loss, self.losses) or self._is_far(grad_norm, self.grad_norms)

    def _is_far(self, value: float, window: deque[float]) -> bool:
        sigmas = self.settings.spike_sigmas
        if not sigmas or len(window) < max(2, self.settings.spike_window_steps // 2):
            return False
        mean, deviation = mean_and_deviation(window)
        return value > mean + sigmas * max(deviation, NOISE * abs(mean))

    def record(self, step: int, loss: float, grad_norm: float, *, skipped: bool) -> None:
        """Remember a step that was done or skipped."""
        self.recent_losses.append(loss)
        if skipped:
            self.skipped.append(step)
        else:
            self.losses.append(loss)
            self.grad_norms.append(grad_norm)

    def check(self, step: int) -> None:
        """Raise Abandoned after a skipped step when there were too many lately; the same on every rank."""
        limit, lately = self.settings.spike_limit, self.num_lately(step)
        if self.skipped[-1:] == [step] and lately >= limit:
            raise Abandoned(
                TooManySpikes(
                    f"step {step} is spike {lately} within {self.settings.spike_limit_steps} steps, the limit is "
                    f"{limit}: skipped were {', '.join(map(str, self.skipped[-lately:]))}. This step is saved: "
                    "look at the documents of these steps in steps.jsonl, lower optimizer.learning_rate, or raise "
                    "resilience.spike_limit"
                )
            )

    def num_lately(self, step: int) -> int:
        """Spikes among the last `spike_limit_steps` steps up to `step`."""
        return sum(step - self.settings.spike_limit_steps < skipped <= step for skipped in self.skipped)

    def state(self) -> dict[str, Any]:
        """All of it as JSON; floats come back bit for bit."""
        return {
            "losses": list(self.losses),
            "grad_norms": list(self.grad_norms),
            "recent_losses": list(self.recent_losses),
            "skipped": self.skipped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`; a window that is now shorter keeps its newest values."""
        for name in ("losses", "grad_norms", "recent_losses"):
            values: deque[float] = getattr(self, name)
            values.clear()
            values.extend(state[name])
        self.skipped = list(state["skipped"])


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the population), summed exactly."""
    known = list(values)
    mean = math.fsum(known) / len(known)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
