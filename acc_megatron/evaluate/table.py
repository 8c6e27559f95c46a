"""What `eval` prints: a line a model and benchmark, then what one model gained on another."""

from collections.abc import Iterator
from typing import Any

from acc_megatron.evaluate.report import percent


def result_lines(results: dict[str, Any]) -> Iterator[str]:
    """Lines of the means in percent with their 95 % intervals."""
    width = max(len(model) for model in results["models"])
    for name, benchmark in results["benchmarks"].items():
        for model, summary in benchmark["models"].items():
            means = "  ".join(f"{metric} {percent(summary, metric)}" for metric in summary["means"])
            yield f"{name:<12} {model:<{width}} {summary['num_items']:>5} items  {means}"
            refused = summary["asked"]["without_answer"]
            for reason, count in refused.items():
                yield f"{'':<12} {model:<{width}} {count:>5} without answer: {reason}"
        for one in benchmark["differences"]:
            means = "  ".join(f"{metric} {percent(one, metric)}" for metric in one["means"])
            yield f"{name:<12} {one['model']} minus {one['minus']}, {one['num_items']} items  {means}"
