"""What `eval` prints: one line for each model and benchmark, then the differences between models."""

from collections.abc import Iterator

from acc_megatron.evaluate.report.means import headline_first, percent
from acc_megatron.evaluate.results_format import Results, Summary


def result_lines(results: Results) -> Iterator[str]:
    """Lines of the means in percent with their 95 % intervals."""
    width = max(len(model) for model in results["models"])
    for name, benchmark in results["benchmarks"].items():
        first = headline_first(benchmark["kind"])
        for model, summary in benchmark["models"].items():
            means = "  ".join(f"{metric} {percent(summary, metric)}" for metric in sorted(summary["means"], key=first))
            yield f"{name:<12} {model:<{width}} {_num_items(summary):>11}  {means}"
            for reason, count in summary["asked"]["without_answer"].items():
                yield f"{'':<12} {model:<{width}} {count:>5} without answer: {reason}"
        for one in benchmark["differences"]:
            means = "  ".join(f"{metric} {percent(one, metric)}" for metric in sorted(one["means"], key=first))
            yield f"{name:<12} {one['model']} minus {one['minus']}, {_num_items(one)}  {means}"


def unanswered_lines(results: Results) -> Iterator[str]:
    """One line for each benchmark that a model could not answer."""
    for name, by_model in results.get("unanswered", {}).items():
        for model, why in by_model.items():
            yield f"{name:<12} {model}: no answer: {why}"


def _num_items(summary: Summary) -> str:
    return f"{summary['num_items']:,} item{'s' if summary['num_items'] != 1 else ''}"
