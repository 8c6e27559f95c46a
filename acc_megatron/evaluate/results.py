"""From graded items to results: means by model, benchmark and group with intervals, and differences between models.

`results.json` holds, beside name, versions, settings, tokenizer, models, requests and seconds:

- `benchmarks.NAME`: `kind`; `generated`, whether the rows are ours; `left_out`, rows by reason; `corrected_truths`;
  `models.MODEL` with `num_items`, `means`, `intervals`, the same under `groups.GROUP.VALUE`, and `asked` (answers, how
  many were cut or are longer than is matched, tokens, cost, questions `without_answer` by reason); `differences`
  between models, paired by question.
- `items`, one for each model and question with an answer: `id`, `benchmark`, `model`, `groups`, `prompt_sha256`,
  `num_tokens` of the messages (not for lm-eval), `scores`, and `answers`: for each `repeat` its `response`,
  `reasoning_chars`, `finish_reason`, `prompt_tokens`, `new_tokens` and `scores`.

Means and scores are fractions, not percent.
"""

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

FORMAT_VERSION = 3
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
                for value, members in sorted(values.items(), key=lambda one: natural_order(one[0]))
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


def natural_order(value: str) -> tuple[int, str]:
    """The key that sorts bins by their numbers, and words after them by the alphabet."""
    head = value.partition("-")[0]
    return (int(head), "") if head.isdecimal() else (1 << 62, value)


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
