"""The layout of results.json. Means and scores are fractions, not percent.

Version 3. A change that an older reader would misread raises FORMAT_VERSION.
"""

from typing import Any, NotRequired, TypedDict

FORMAT_VERSION = 3
RESULTS_FILE = "results.json"


class GradedAnswer(TypedDict):
    """One answer of one sample (`repeat`, from 0) and what its grader reports."""

    repeat: int
    response: str
    reasoning_chars: int
    finish_reason: str
    prompt_tokens: int
    new_tokens: int
    scores: dict[str, float]


class Item(TypedDict):
    """One question to one model with at least one answer; `scores` are the means over its answers (avg@k).

    `groups` names the parts over which means are taken too, such as `{"n_needles": "2"}`. `prompt_sha256` identifies
    the question across runs. `num_tokens` counts the contents of the messages; lm-eval's tasks do not state it.
    """

    id: str
    benchmark: str
    groups: dict[str, str]
    prompt_sha256: str
    num_tokens: NotRequired[int]
    answers: list[GradedAnswer]
    scores: dict[str, float]


class ModelItem(Item):
    """An item under the name of the model that answered it."""

    model: str


class Summary(TypedDict):
    """Means over items by metric, with 95 % intervals `[low, high]`; the interval of a single item is null."""

    num_items: int
    means: dict[str, float]
    intervals: dict[str, list[float] | None]


class Difference(Summary):
    """`model` minus `minus`, paired over the questions that both answered."""

    model: str
    minus: str


class Asked(TypedDict):
    """What was asked: answers, tokens, cost, and the questions without an answer by reason, with one detail each.

    `num_longer_than_matched` counts answers of which the grader matched only the beginning.
    """

    num_answers: int
    num_cut_at_max_new_tokens: int
    prompt_tokens: int
    new_tokens: int
    cost: float
    without_answer: dict[str, int]
    details: dict[str, str]
    num_longer_than_matched: int


class ModelSummary(Summary):
    """One model on one benchmark; `groups` has the same means by group and value. `lm_eval` is its own aggregate."""

    groups: dict[str, dict[str, Summary]]
    asked: Asked
    lm_eval: NotRequired[dict[str, Any]]


class BenchmarkResult(TypedDict):
    """One benchmark: what its rows are, what was left out by reason, and every model's summary.

    `corrected_truths` counts published answers that were corrected.
    """

    kind: str
    generated: bool
    left_out: dict[str, int]
    corrected_truths: int
    models: dict[str, ModelSummary]
    differences: list[Difference]


class Results(TypedDict):
    """The whole of results.json; `models` describes each model, `settings` is the run as it was read.

    `unanswered` gives, by benchmark and model, why a model answered no question of a benchmark.
    """

    format_version: int
    code_version: str
    name: str
    settings: dict[str, Any]
    tokenizer: dict[str, str]
    models: dict[str, dict[str, Any]]
    benchmarks: dict[str, BenchmarkResult]
    unanswered: NotRequired[dict[str, dict[str, str]]]
    items: list[ModelItem]
    requests: dict[str, int]
    seconds: float
