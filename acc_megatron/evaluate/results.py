"""From graded items to results: means by model, benchmark and group with intervals, and differences between models."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from acc_megatron.errors import DataError
from acc_megatron.evaluate.harness import answer_row
from acc_megatron.evaluate.items import Question
from acc_megatron.evaluate.models import Answer, Outcome
from acc_megatron.evaluate.questions import METRICS
from acc_megatron.evaluate.statistics import paired_difference, summarise

FORMAT_VERSION = 2
RESULTS_FILE = "results.json"
Item = dict[str, Any]


def graded_items(questions: Sequence[Question], outcomes: Sequence[Sequence[Outcome]], kind: str) -> list[Item]:
    """Items with every answer and its scores; `outcomes` holds the repeats of each question.

    An item's score is the mean over its answers (avg@k). A question without any answer is no item: a zero would say
    that the model was wrong, where it was not asked.
    """
    items = []
    for question, repeats in zip(questions, outcomes, strict=True):
        answers = [
            answer_row(outcome, repeat) | {"scores": question.grade(outcome.response)}
            for repeat, outcome in enumerate(repeats)
            if isinstance(outcome, Answer)
        ]
        if answers:
            scores = {
                metric: sum(answer["scores"][metric] for answer in answers) / len(answers) for metric in METRICS[kind]
            }
            items.append(
                {
                    "id": question.id,
                    "benchmark": question.benchmark,
                    "groups": question.groups,
                    "prompt_sha256": question.sha256,
                    "num_tokens": question.num_tokens,
                    "answers": answers,
                    "scores": scores,
                }
            )
    return items


def summarise_items(items: Sequence[Item], *, samples: int, seed: int) -> dict[str, Any]:
    """Means over items, never over means, of one model on one benchmark, and for each value of each group."""
    groups: defaultdict[str, defaultdict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for group, value in item["groups"].items():
            groups[group][value].append(item)
    return summarise([item["scores"] for item in items], samples=samples, seed=seed) | {
        "groups": {
            group: {
                value: summarise([item["scores"] for item in members], samples=samples, seed=seed)
                for value, members in sorted(values.items(), key=_natural)
            }
            for group, values in groups.items()
        }
    }


def differences(items_of: Mapping[str, Sequence[Item]], *, samples: int, seed: int) -> list[dict[str, Any]]:
    """For each pair of models, the later minus the earlier, over the questions that both answered.

    Questions are the same when their prompts are, whatever they are called.
    """
    found = []
    for (first, before), (second, after) in combinations(items_of.items(), 2):
        by_prompt = [{item["prompt_sha256"]: item["scores"] for item in items} for items in (after, before)]
        difference = paired_difference(*by_prompt, samples=samples, seed=seed)
        if difference["num_items"]:
            found.append({"model": second, "minus": first, **difference})
    return found


def _natural(value: tuple[str, object]) -> tuple[int, str]:
    """Bins in the order of their numbers, words after them in that of the alphabet."""
    head = value[0].partition("-")[0]
    return (int(head), "") if head.isdigit() else (1 << 62, value[0])


def read_results(folder: Path) -> dict[str, Any]:
    """The results of another run, from its folder. Raises DataError when there are none of this format."""
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"no results of an evaluation at {path}: {error}") from None
    version = results.get("format_version") if isinstance(results, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {version}, and this is {FORMAT_VERSION}: run its eval again")
    return results
