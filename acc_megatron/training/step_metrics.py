"""Metrics that a step logs in addition to its result, each one object, registered in METRICS."""

from dataclasses import dataclass
from typing import Protocol, cast

import torch

from acc_megatron.observe.expert_load import load_values
from acc_megatron.observe.usage import batch_flops, memory_bytes, peak_flops_per_second
from acc_megatron.training.step_result import MetricValue
from acc_megatron.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class RankStep:
    """What one rank knows of a step before the ranks exchange anything."""

    trainer: Trainer
    batch: list[int]  # numbers of the packed rows in the global batch
    data_seconds: float  # time that this rank waited for its packed rows, which a thread reads ahead


@dataclass(frozen=True, kw_only=True)
class FinishedStep(RankStep):
    """What one rank knows of a step at its end."""

    seconds: float
    tokens: int
    measured: dict[str, list[int]]  # by name, the number of each rank, as `StepMetric.measure` gave it
    section_seconds: dict[str, float]  # by section, on this rank
    expert_tokens: torch.Tensor  # `[layers, experts]` int64, summed over the ranks


class StepMetric(Protocol):
    """One metric, or several that belong together."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Return whole numbers of this rank that all ranks exchange; the names must be the same on every rank."""

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return what is logged, by its name in steps.jsonl; must be the same on every rank."""


class Throughput:
    """Tokens per second of the whole job."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Nothing to exchange."""
        return {}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return tokens divided by this rank's wall time."""
        return {"tokens_per_second": step.tokens / step.seconds}


class DataWait:
    """Longest time that a rank waited for its packed rows."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Return this rank's wait in microseconds."""
        return {"data_wait_microseconds": round(step.data_seconds * 1e6)}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return the largest wait in seconds."""
        return {"data_wait_seconds": max(step.measured["data_wait_microseconds"]) / 1e6}


class Sections:
    """Seconds of each section of the step on rank 0; `save_seconds` is the save before this step."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Nothing to exchange."""
        return {}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return one value for each section."""
        return {f"{name}_seconds": round(seconds, 6) for name, seconds in step.section_seconds.items()}


class ModelFlops:
    """Model FLOPs per second of the whole job, and their share of its devices' peak, which is None if unknown."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Nothing to exchange."""
        return {}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return the rate and its share of the peak."""
        trainer = step.trainer
        rate = batch_flops(trainer.loader, step.batch, trainer.config.model) / step.seconds
        peak = peak_flops_per_second(trainer.config.observe.peak_flops_per_second)
        share = rate / (peak * trainer.layout.world) if peak else None
        return {"model_flops_per_second": rate, "peak_share": share}


class Memory:
    """Memory of the rank that uses most: at the end of the step, and the peak so far."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Return this rank's bytes."""
        now, peak = memory_bytes()
        return {"memory_bytes": now, "memory_peak_bytes": peak}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return the largest number of bytes over the ranks."""
        return {name: max(step.measured[name]) for name in ("memory_bytes", "memory_peak_bytes")}


class ExpertLoad:
    """How evenly each layer's tokens are spread over its experts."""

    def measure(self, step: RankStep) -> dict[str, int]:
        """Nothing to exchange: the counts are summed over the ranks in the same collective."""
        return {}

    def values(self, step: FinishedStep) -> dict[str, MetricValue]:
        """Return, for each layer, the largest load divided by the mean, and the number of experts without tokens."""
        return cast(dict[str, MetricValue], load_values(step.expert_tokens)) if step.expert_tokens.numel() else {}


METRICS: tuple[StepMetric, ...] = (Throughput(), DataWait(), Sections(), ModelFlops(), Memory(), ExpertLoad())


def measure(step: RankStep) -> dict[str, int]:
    """Return the numbers of this rank that the metrics exchange."""
    return {name: number for metric in METRICS for name, number in metric.measure(step).items()}


def metric_values(step: FinishedStep) -> dict[str, MetricValue]:
    """Return the logged values of all metrics."""
    return {name: value for metric in METRICS for name, value in metric.values(step).items()}
