"""Runs the benchmark of the masked loss: every implementation, on one case."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.kernels.benchmark.child import DoesNotFit
from acc_megatron.kernels.benchmark.costs import Case, Ceiling, floor
from acc_megatron.kernels.benchmark.implementation import Implementation
from acc_megatron.kernels.benchmark.measure import DIRECTIONS, Measurement, Seconds, measure
from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS, package_version, reason_unavailable

MEASURED = "measured"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One implementation in one direction ("forward", "backward" or "both").

    `package` is the package with its version. `status` is "measured", or why there are no figures; then the direction
    is "both". Ratios are relative to plain, above 1 is better, and None if plain does not fit. Errors are differences
    from float64 (`inputs.Errors`). Rates and formulas are given for "both" if the costs are known. `floor_share` is
    `costs.floor` at the measured ceilings of this device, divided by the time.
    """

    implementation: str
    package: str
    direction: str
    status: str
    tokens: int
    supervised: int
    vocab: int
    hidden: int
    element_bytes: int
    num_shards: int
    dtype: str
    repeats: int
    ceiling_tflop_per_second: float
    ceiling_gb_per_second: float
    gpu_state: str = ""
    p20_us: int | None = None
    p50_us: int | None = None
    p80_us: int | None = None
    peak_mib: float | None = None
    time_ratio_vs_plain: float | None = None
    memory_ratio_vs_plain: float | None = None
    loss_error: float | None = None
    hidden_error: float | None = None
    weight_error: float | None = None
    gflop: float | None = None
    tflop_per_second: float | None = None
    gb_per_second: float | None = None
    formula_peak_mib: float | None = None
    floor_share: float | None = None


def run_benchmark(
    case: Case,
    dtype: str,
    *,
    repeats: int,
    ceiling: Ceiling,
    progress: Callable[[str], None],
    chosen: Sequence[Implementation] = IMPLEMENTATIONS,
) -> list[Row]:
    """Measure the chosen implementations; one that cannot run or does not fit is a row that says so."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    common: dict[str, Any] = {
        **case._asdict(),
        "dtype": dtype,
        "repeats": repeats,
        **ceiling.rounded(),
    }
    rows: list[Row] = []
    plain: Measurement | None = None
    for each in chosen:
        common["package"] = package_version(each)
        own = _measured(each, case, dtype, repeats, device, progress)
        if isinstance(own, str):
            rows.append(Row(implementation=each.name, direction="both", status=own, **common))
            continue
        if each.name == "plain":
            plain = own
        for direction in ("both",) if each.gradient_in_forward else DIRECTIONS:
            figures = _figures(own, plain, direction) | (
                _rates(each, case, own, ceiling) if direction == "both" else {}
            )
            rows.append(Row(implementation=each.name, direction=direction, status=MEASURED, **common, **figures))
    return rows


def _measured(
    each: Implementation, case: Case, dtype: str, repeats: int, device: str, progress: Callable[[str], None]
) -> Measurement | str:
    """The measurement, or why there is none; `progress` gets one line."""
    label = f"{each.name}: {case.tokens} tokens, {case.supervised} supervised, vocabulary {case.vocab}"
    try:
        reason = reason_unavailable(each, device)
        if case.num_shards > 1 and not each.shards_vocabulary:
            reason = "every rank needs the full vocabulary"
        if not reason:
            progress(label)
            return measure(each.name, case, dtype, repeats)
        status = f"not available: {reason}"
    except DoesNotFit as error:
        status = f"does not fit: {error}"
    except EnvironmentProblem as error:
        status = f"failed: {error}"
    progress(f"{each.name}: {status}")
    return status


def _figures(own: Measurement, plain: Measurement | None, direction: str) -> dict[str, Any]:
    seconds: Seconds = getattr(own, direction)
    values: dict[str, Any] = {
        "gpu_state": own.gpu_state,
        "p20_us": round(1e6 * seconds.p20),
        "p50_us": round(1e6 * seconds.p50),
        "p80_us": round(1e6 * seconds.p80),
        "peak_mib": round(own.peak_bytes / 2**20, 1),
        "loss_error": own.errors.loss,
        "hidden_error": own.errors.hidden,
        "weight_error": own.errors.weight,
    }
    if plain is not None:
        plain_seconds: Seconds = getattr(plain, direction)
        values["time_ratio_vs_plain"] = round(plain_seconds.p50 / max(seconds.p50, 1e-9), 2)
        values["memory_ratio_vs_plain"] = round(plain.peak_bytes / max(own.peak_bytes, 1), 2)
    return values


def _rates(each: Implementation, case: Case, own: Measurement, ceiling: Ceiling) -> dict[str, float]:
    seconds = max(own.both.p50, 1e-9)
    rates = {"floor_share": round(floor(case).seconds(ceiling) / seconds, 3)}
    if (cost := each.cost(case)) is not None:
        rates |= {
            "gflop": round(cost.flops / 1e9, 2),
            "tflop_per_second": round(cost.flops / seconds / 1e12, 3),
            "gb_per_second": round(cost.bytes / seconds / 1e9, 2),
            "formula_peak_mib": round(cost.peak_bytes / 2**20, 1),
        }
    return rates
