"""The costs by formula at the size of Qwen3-30B-A3B (`acc-megatron bench kernels --costs`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from acc_megatron.kernels.benchmark.costs import H100, Case, Cost, floor, shard_cases
from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """The costs of one implementation on one of `num_shards` shards of the vocabulary.

    The model time is `Cost.seconds` on an H100 SXM. The share of the floor is the time of `costs.floor` divided by it.
    """

    implementation: str
    num_shards: int
    flops: int
    peak_bytes: int
    model_seconds: float
    floor_share: float


def cost_rows(
    *,
    tokens: int = 131_072,
    supervised_share: float = 0.04,
    vocab: int = 151_936,
    hidden: int = 2048,
    num_shards: tuple[int, ...] = (1, 2, 4, 8),
) -> list[CostRow]:
    """The rows of every implementation whose costs are known, and of the floor.

    Implementations that do not shard the vocabulary have a row for one shard only.
    """
    case = Case(tokens, round(tokens * supervised_share), vocab, hidden)
    rows = []
    for each in IMPLEMENTATIONS:
        for own in shard_cases(case, num_shards if each.shards_vocabulary else (1,)):
            if (cost := each.cost(own)) is not None:
                rows.append(_row(each.name, own, cost))
    return rows + [_row("floor", own, floor(own)) for own in shard_cases(case, num_shards)]


def cost_table(rows: Sequence[CostRow]) -> str:
    """Markdown table with a line for each implementation, its shards side by side."""
    shards = " / ".join(map(str, sorted({row.num_shards for row in rows})))
    titles = ("TFLOP", "peak GiB", "model ms", "share of the floor %")
    lines = [f"| implementation | {' | '.join(f'{title}, TP {shards}' for title in titles)} |", "|---|---|---|---|---|"]
    for name, own in groupby(rows, key=lambda row: row.implementation):
        lines.append(f"| {name} | {' | '.join(_cells(list(own)))} |")
    return "\n".join(lines)


def _row(name: str, case: Case, cost: Cost) -> CostRow:
    seconds = cost.seconds(H100)
    return CostRow(
        implementation=name,
        num_shards=case.num_shards,
        flops=cost.flops,
        peak_bytes=cost.peak_bytes,
        model_seconds=seconds,
        floor_share=floor(case).seconds(H100) / seconds,
    )


def _cells(rows: Sequence[CostRow]) -> tuple[str, ...]:
    return (
        " / ".join(f"{row.flops / 1e12:.1f}" for row in rows),
        " / ".join(f"{row.peak_bytes / 2**30:.2f}" for row in rows),
        " / ".join(f"{1e3 * row.model_seconds:.1f}" for row in rows),
        " / ".join(f"{100 * row.floor_share:.0f}" for row in rows),
    )
