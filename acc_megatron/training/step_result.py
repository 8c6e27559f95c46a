"""What one optimizer step returns to the training loop and writes to the log."""

import dataclasses
from dataclasses import dataclass
from typing import Any

MetricValue = float | int | None | list[float] | list[int]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The values of one step; the same on every rank."""

    loss: float  # mean over the supervised tokens of the global batch
    supervised_tokens: int
    tokens: int  # of all packed rows, padding included
    documents: str  # numbers of the documents in the batch, as ranges: 3,5-9,12
    learning_rate: float
    grad_norm: float  # before clipping
    updated: bool  # whether the optimizer changed the weights
    skipped: bool  # whether the step was a spike
    skipped_steps: int  # number of skipped steps in the run so far
    seconds: float
    layout: str
    metrics: dict[str, MetricValue]  # of METRICS in training/step_metrics.py

    def log_values(self) -> dict[str, Any]:
        """Return all values by the names they have in steps.jsonl."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | values.pop("metrics")
