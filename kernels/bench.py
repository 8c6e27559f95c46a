"""The benchmark of the masked loss: every implementation that runs here, in one run, against plain code.

Machine and versions stand in every row. The roofline is that of an H100 SXM, so its share is given on a GPU only.
"""

import csv
import datetime
import io
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from acc_megatron.kernels.costs import COSTS, Case, roofline_seconds
from acc_megatron.kernels.implementations import implementations
from acc_megatron.kernels.measure import DIRECTIONS, measure

# the formula that describes what an implementation does
FORMULA = {"chunked": "chunked (Liger)", "Liger": "chunked (Liger)", "reference": "ours, keep"}
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def bench(case: Case, dtype: str, *, repeats: int, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows: implementation x direction, with percentiles, rates, peak memory and ratios to plain (above 1: better)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    base: dict[str, Any] = {}
    for name in implementations(device):
        progress(
            f"{name}: {case.tokens} tokens, {case.supervised} supervised, {case.vocab} words, hidden {case.hidden}"
        )
        # plain is long and steady
        result = measure(name, case, dtype, 1 if name == "plain" and device == "cpu" else repeats)
        base = base or result
        rows += [_row(name, direction, case, dtype, device, result, base) for direction in DIRECTIONS]
    return rows


def _row(
    name: str,
    direction: str,
    case: Case,
    dtype: str,
    device: str,
    result: dict[str, Any],
    base: dict[str, Any],
) -> dict[str, Any]:
    p20, p50, p80 = result[direction]
    formula = COSTS.get(FORMULA.get(name, name))
    cost = formula(case) if formula and direction == "both" else None
    return {
        "implementation": name,
        "direction": direction,
        **case._asdict(),
        "dtype": dtype,
        "p20_us": round(1e6 * p20),
        "p50_us": round(1e6 * p50),
        "p80_us": round(1e6 * p80),
        "peak_mib": round(result["peak_bytes"] / 2**20, 1),
        "time_ratio_vs_plain": round(base[direction][1] / max(p50, 1e-9), 2),
        "memory_ratio_vs_plain": round(base["peak_bytes"] / max(result["peak_bytes"], 1), 2),
        "gflop": round(cost.flops / 1e9, 2) if cost else None,
        "tflop_per_second": round(cost.flops / p50 / 1e12, 3) if cost else None,
        "logit_gb_per_second": round(cost.logit_bytes / p50 / 1e9, 2) if cost else None,
        "formula_peak_mib": round(cost.peak_bytes / 2**20, 1) if cost else None,
        "roofline_share": round(roofline_seconds(cost) / p50, 3) if cost and device == "cuda" else None,
        "machine": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "torch": torch.__version__,
        "triton": _triton_version(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One object: the ratios of our faster plan, the case, and all rows."""
    ours = [row for row in rows if row["implementation"].startswith("ours") and row["direction"] == "both"]
    best = min(ours, key=lambda row: row["p50_us"])
    keys = ("time_ratio_vs_plain", "memory_ratio_vs_plain", "tokens", "vocab", "hidden", "dtype", "machine", "torch")
    share = best["supervised"] / best["tokens"]
    return {key: best[key] for key in keys} | {"plan": best["implementation"], "supervised_share": share, "rows": rows}


def text(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of forward and backward together, and the machine."""
    lines = [
        "| implementation | forward ms | backward ms | both ms | peak MiB | time vs plain | memory vs plain | GFLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for start in range(0, len(rows), len(DIRECTIONS)):
        forward, backward, both = rows[start : start + len(DIRECTIONS)]
        times = " | ".join(f"{row['p50_us'] / 1e3:.1f}" for row in (forward, backward, both))
        ratios = f"{both['time_ratio_vs_plain']:.1f}x | {both['memory_ratio_vs_plain']:.1f}x"
        flops = both["gflop"] if both["gflop"] is not None else "not known"
        lines.append(f"| {both['implementation']} | {times} | {both['peak_mib']} | {ratios} | {flops} |")
    last = rows[-1]
    lines.append(f"\n{last['machine']}, one thread, {last['dtype']}, torch {last['torch']}, Triton {last['triton']}")
    return "\n".join(lines)


def append_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a CSV file, with a header where it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(buffer.getvalue())


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Bars of time and peak memory, forward and backward together, on logarithmic axes."""
    from matplotlib.figure import Figure

    both = [row for row in rows if row["direction"] == "both"]
    names = [row["implementation"] for row in both]
    figure = Figure(figsize=(9, 0.5 * len(both) + 1.5), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2, sharey=True), ("p50_us", "peak_mib"), ("µs", "MiB"), strict=True):
        bars = axes.barh(names, [row[key] for row in both], color="#3b6ea5")
        axes.bar_label(bars, padding=3, fontsize=8)
        axes.set(xscale="log", xlabel=label, xmargin=0.25)
    first = both[0]
    figure.suptitle(
        f"{first['tokens']} tokens, {first['supervised']} supervised, {first['vocab']} words; {first['machine']}",
        size=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _triton_version() -> str:
    try:
        import triton
    except ImportError:
        return "absent"
    return triton.__version__
