"""Reports of the kernel benchmark: one JSON object or Markdown tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from acc_megatron.kernels.benchmark.parts import PartRow
from acc_megatron.kernels.benchmark.run import MEASURED, Row

COLUMNS = (
    "implementation", "forward ms", "backward ms", "both ms (p20-p80)", "peak MiB", "time vs plain", "memory vs plain",
    "TFLOP/s", "GB/s", "share of floor %", "error: loss", "hidden", "weight",
)  # fmt: skip
PART_COLUMNS = ("part", "µs p20", "p50", "p80", "TFLOP/s", "GB/s", "share of ceiling %")


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The ratios of our faster memory mode in the last case, that case, and all rows."""
    last = rows[-1]
    result: dict[str, Any] = {"time_ratio_vs_plain": None, "memory_ratio_vs_plain": None, "implementation": None}
    ours = [
        row
        for row in rows
        if row.implementation.startswith("ours")
        and row.direction == "both"
        and row.p50_us is not None
        and _case(row) == _case(last)
    ]
    if ours:
        best = min(ours, key=lambda row: row.p50_us or 0)
        result = {key: getattr(best, key) for key in result}
    return result | {
        "supervised_share": last.supervised / last.tokens,
        "tokens": last.tokens,
        "vocab": last.vocab,
        "hidden": last.hidden,
        "dtype": last.dtype,
        "rows": [asdict(row) for row in rows],
    }


def markdown(rows: Sequence[Row]) -> str:
    """A table of one case with one line per implementation; one without figures is listed with the reason."""
    case = rows[0]
    lines = [
        f"{case.tokens} tokens, {case.supervised} supervised, vocabulary {case.vocab}{_shard(case)}, "
        f"hidden size {case.hidden}, {case.dtype}, {case.repeats} repeats",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for name in dict.fromkeys(row.implementation for row in rows):
        by_direction = {row.direction: row for row in rows if row.implementation == name}
        lines.append(f"| {' | '.join(_cells(by_direction))} |")
    return "\n".join(lines)


def parts_markdown(rows: Sequence[PartRow]) -> str:
    """A table of one case with one line per part."""
    case = rows[0]
    lines = [
        f"{case.supervised} rows, vocabulary {case.vocab}{_shard(case)}, hidden size {case.hidden}, {case.dtype}, "
        f"{case.repeats} repeats",
        "",
        f"| {' | '.join(PART_COLUMNS)} |",
        f"|{'---|' * len(PART_COLUMNS)}",
    ]
    for row in rows:
        cells = [row.part, row.status, *[""] * (len(PART_COLUMNS) - 2)]
        if row.ceiling_share is not None:
            figures = row.p20_us, row.p50_us, row.p80_us, row.tflop_per_second, row.gb_per_second
            cells = [row.part, *map(_text, figures), f"{100 * row.ceiling_share:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def footnotes(rows: Sequence[Row] | Sequence[PartRow], machine: dict[str, str]) -> str:
    """How to read the tables: the device, its measured ceilings, the versions and the commit."""
    last = rows[-1]
    clock = f"CUDA events, {last.gpu_state}" if last.gpu_state else "CPU time of one thread"
    return (
        f"\n{machine['machine']}; {clock}; ceilings measured here: {last.ceiling_tflop_per_second} TFLOP/s, "
        f"{last.ceiling_gb_per_second} GB/s\n{machine['versions']}\ncommit {machine['commit'] or 'unknown'}"
    )


def _cells(by_direction: dict[str, Row]) -> list[str]:
    both = by_direction["both"]
    if both.status != MEASURED:
        return [both.implementation, both.status, *[""] * (len(COLUMNS) - 2)]
    forward, backward = by_direction.get("forward"), by_direction.get("backward")
    spread = f"{_ms(both.p50_us)} ({_ms(both.p20_us)}-{_ms(both.p80_us)})"
    share = "" if both.floor_share is None else f"{100 * both.floor_share:.1f}"
    return [
        both.implementation,
        _ms(forward.p50_us) if forward else "",
        _ms(backward.p50_us) if backward else "",
        spread,
        _text(both.peak_mib),
        _text(both.time_ratio_vs_plain, "x"),
        _text(both.memory_ratio_vs_plain, "x"),
        _text(both.tflop_per_second),
        _text(both.gb_per_second),
        share,
        *(f"{value:.1e}" for value in (both.loss_error, both.hidden_error, both.weight_error) if value is not None),
    ]


def _shard(case: Row | PartRow) -> str:
    return f", one of {case.num_shards} shards" if case.num_shards > 1 else ""


def _ms(microseconds: int | None) -> str:
    return "" if microseconds is None else f"{microseconds / 1e3:.1f}"


def _text(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value}{unit}"


def _case(row: Row) -> tuple[int, ...]:
    return row.tokens, row.supervised, row.vocab, row.hidden, row.num_shards
