"""From graded items to results: means by model, benchmark and group with intervals, and differences between models."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import cast

from acc_megatron.errors import DataError
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.results_format import (
    FORMAT_VERSION,
    RESULTS_FILE,
    Asked,
    Difference,
    Item,
    ModelSummary,
    Results,
)
from acc_megatron.evaluate.statistics import paired_difference, summarise


def summarise_items(items: Sequence[Item], asked: Asked, *, samples: int, seed: int) -> ModelSummary:
    """Means over the items (never over means) of one model on one benchmark, and for each value of each group."""
    groups: defaultdict[str, defaultdict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for group, value in item["groups"].items():
            groups[group][value].append(item)
    return {
        **summarise([item["scores"] for item in items], samples=samples, seed=seed),
        "groups": {
            group: {
                value: summarise([item["scores"] for item in members], samples=samples, seed=seed)
                for value, members in sorted(values.items(), key=lambda one: natural_order(one[0]))
            }
            for group, values in groups.items()
        },
        "asked": asked,
    }


def differences(items_of: Mapping[str, Sequence[Item]], *, samples: int, seed: int) -> list[Difference]:
    """For each pair of models, the later minus the earlier, over the questions that both answered.

    Two questions are the same if their prompts are equal, whatever their ids.
    """
    found: list[Difference] = []
    for (first, before), (second, after) in combinations(items_of.items(), 2):
        by_prompt = [{item["prompt_sha256"]: item["scores"] for item in items} for items in (after, before)]
        difference = paired_difference(*by_prompt, samples=samples, seed=seed)
        if difference["num_items"]:
            found.append({"model": second, "minus": first, **difference})
    return found


def natural_order(value: str) -> tuple[int, str]:
    """The sort key that orders bins by their numbers, and words after them alphabetically."""
    head = value.partition("-")[0]
    return (int(head), "") if head.isdecimal() else (1 << 62, value)


def read_results(folder: Path) -> Results:
    """The results of another run, from its folder. Raises DataError if it has none in this format."""
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"no results of an evaluation at {path}: {error}") from None
    version = results.get("format_version") if isinstance(results, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format_version {version}, but this version reads {FORMAT_VERSION}: run its eval again"
        )
    for name, benchmark in results["benchmarks"].items():
        if benchmark["kind"] not in BENCHMARKS:
            raise DataError(f"{path}: benchmark {name} is of kind {benchmark['kind']!r}, which is not registered here")
    return cast(Results, results)
