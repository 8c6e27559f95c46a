"""The table of costs by formula at the size of Qwen3-30B-A3B (`acc-megatron bench kernels --costs`)."""

from acc_megatron.kernels.benchmark.costs import H100, Case, Cost, floor, shard_cases
from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS


def cost_table(
    *,
    tokens: int = 131_072,
    supervised_share: float = 0.04,
    vocab: int = 151_936,
    hidden: int = 2048,
    num_shards: tuple[int, ...] = (1, 2, 4, 8),
) -> str:
    """Markdown table of TFLOP, peak GiB, model milliseconds and share of the floor, by number of vocabulary shards.

    The model time is `Cost.seconds` on an H100 SXM. The share of the floor is the time of `costs.floor` divided by it.
    Implementations that do not shard the vocabulary are listed for one shard only.
    """
    case = Case(tokens, round(tokens * supervised_share), vocab, hidden)
    shards = " / ".join(map(str, num_shards))
    titles = ("TFLOP", "peak GiB", "model ms", "share of the floor %")
    lines = [f"| implementation | {' | '.join(f'{title}, TP {shards}' for title in titles)} |", "|---|---|---|---|---|"]
    for each in IMPLEMENTATIONS:
        counts = num_shards if each.shards_vocabulary else (1,)
        costs = [(own, cost) for own in shard_cases(case, counts) if (cost := each.cost(own)) is not None]
        if costs:
            lines.append(f"| {each.name} | {' | '.join(_cells(costs))} |")
    lines.append(f"| floor | {' | '.join(_cells([(own, floor(own)) for own in shard_cases(case, num_shards)]))} |")
    return "\n".join(lines)


def _cells(costs: list[tuple[Case, Cost]]) -> tuple[str, ...]:
    return (
        " / ".join(f"{cost.flops / 1e12:.1f}" for _, cost in costs),
        " / ".join(f"{cost.peak_bytes / 2**30:.2f}" for _, cost in costs),
        " / ".join(f"{1e3 * cost.seconds(H100):.1f}" for _, cost in costs),
        " / ".join(f"{100 * floor(case).seconds(H100) / cost.seconds(H100):.0f}" for case, cost in costs),
    )
