"""Multiple choice over a long text as in LongBench v2: its prompt, its rows, a strict and a flexible grader.

Prompt and strict extraction are those of github.com/THUDM/LongBench (`prompts/0shot.txt` and `pred.py`, MIT), columns
are those of THUDM/LongBench-v2. LongBench cuts the middle of texts over the window; here texts are never cut.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from acc_megatron.errors import DataError
from acc_megatron.evaluate.benchmarks.question import CountTokens, Question, length_bin, strip_thinking
from acc_megatron.evaluate.benchmarks.question_benchmark import QuestionBenchmark, RowSettings

LETTERS = "ABCD"
_CHOICES = tuple(f"choice_{letter}" for letter in LETTERS)
_GROUPS = ("domain", "difficulty", "length")
_PROMPT = """\
Please read the following text and answer the question below.

<text>
{context}
</text>

What is the correct answer to this question: {question}
Choices:
(A) {choice_A}
(B) {choice_B}
(C) {choice_C}
(D) {choice_D}

Format your response as follows: "The correct answer is (insert answer here)"."""
_STRICT = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))
# From the most to the least certain form; of each form the last match counts, since a model weighs choices before it
# settles. No two repetitions of the same characters are adjacent, so that no text takes more than linear time.
_BEFORE = r"[\s\(\[{\"'`$]*"
_FLEXIBLE = (
    re.compile(
        rf"(?i:answer\s*(?:is|:){_BEFORE}(?:(?:option|choice){_BEFORE})?)(?:\\boxed\{{|\\text\{{)*\(?([A-D])(?![A-Za-z'’])"
    ),
    re.compile(r"(?i:answer\s*(?:is|:)\s*(?:(?:option|choice)\s*)?)\(([a-d])\)"),  # a bare "a" would be an article
    re.compile(r"\\boxed\{\s*(?:\\text\{)?\(?([A-D])\)?\}"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"^[^\w\n]*([A-D])[^\w\n]*$", re.MULTILINE),
)


def prompt(row: Mapping[str, str]) -> str:
    """The user message of a row, as published for answers without written reasoning."""
    pieces = {name: row[name].strip() for name in ("context", "question", *_CHOICES)}
    return _PROMPT.format(**pieces)


def extract_strict(response: str) -> str | None:
    """The letter by the published rule: without asterisks, the first `The correct answer is (X)`, then `is X`."""
    text = response.replace("*", "")
    return next((match[1] for rule in _STRICT if (match := rule.search(text))), None)


def extract_flexible(response: str) -> str | None:
    """The letter that a reader would take: the last match of the most certain form, in any case, or a single letter."""
    text = response.replace("*", "")
    for rule in _FLEXIBLE:
        if found := rule.findall(text):
            return found[-1].upper()
    return None


def grade(response: str, answer: str) -> dict[str, float]:
    """1 or 0 by the strict and by the flexible rule; thinking is removed first, and a missing letter scores 0."""
    text = strip_thinking(response)
    return {
        "accuracy": float(extract_strict(text) == answer),
        "flexible_accuracy": float(extract_flexible(text) == answer),
    }


class MultipleChoice(QuestionBenchmark[RowSettings]):
    """Rows of LongBench v2, or others with its columns."""

    kind = "multiple_choice"
    settings = RowSettings
    metrics = ("accuracy", "flexible_accuracy")
    columns = ("_id", *_GROUPS, "sub_domain", "question", *_CHOICES, "answer", "context")
    text_column = "context"

    def published(self, row: Mapping[str, Any], where: str, count_tokens: CountTokens) -> Question:
        """The question of a published row. Raises DataError, naming `where`, for a row of another shape."""
        for name in ("question", *_CHOICES, "answer", "context"):
            if not isinstance(row.get(name), str):
                found = type(row[name]).__name__ if name in row else "nothing"
                raise DataError(f"{where}: multiple-choice column {name!r} must be text, got {found}")
        if row["answer"] not in tuple(LETTERS):
            raise DataError(f"{where}: 'answer' must be one letter of {LETTERS}, got {row['answer']!r:.40}")
        text = prompt(row)
        num_tokens = count_tokens(text)
        groups = {name: row[name] for name in _GROUPS if isinstance(row.get(name), str)}
        return Question(
            id=where,
            groups=groups | {"bin_tokens": length_bin(num_tokens)},
            messages=({"role": "user", "content": text},),
            grade=partial(grade, answer=row["answer"]),
            num_tokens=num_tokens,
        )
