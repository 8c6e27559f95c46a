"""What `eval` prints: a line a model and benchmark, then what one model gained on another."""

from collections.abc import Iterator
from typing import Any

from acc_megatron.evaluate.report import headline_first, percent


def result_lines(results: dict[str, Any]) -> Iterator[str]:
    """Lines of the means in percent with their 95 % intervals."""
    width = max(len(model) for model in results["models"])
    for name, benchmark in results["benchmarks"].items():
        first = headline_first(benchmark)
        for model, summary in benchmark["models"].items():
            means = "  ".join(f"{metric} {percent(summary, metric)}" for metric in sorted(summary["means"], key=first))
            yield f"{name:<12} {model:<{width}} {_items(summary):>11}  {means}"
            refused = summary["asked"]["without_answer"]
            for reason, count in refused.items():
                yield f"{'':<12} {model:<{width}} {count:>5} without answer: {reason}"
        for one in benchmark["differences"]:
            means = "  ".join(f"{metric} {percent(one, metric)}" for metric in sorted(one["means"], key=first))
            yield f"{name:<12} {one['model']} minus {one['minus']}, {_items(one)}  {means}"


def _items(summary: dict[str, Any]) -> str:
    return f"{summary['num_items']:,} item{'s' if summary['num_items'] != 1 else ''}"
