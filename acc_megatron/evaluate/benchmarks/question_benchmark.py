"""The base of benchmarks whose questions are known before any is asked: rows from files, or from a generator."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.benchmark import (
    BenchmarkSettings,
    Draw,
    Graded,
    PreparedBenchmark,
    graded_answer,
)
from acc_megatron.evaluate.benchmarks.paper import PaperColumn
from acc_megatron.evaluate.benchmarks.published_rows import find_files, sample_rows
from acc_megatron.evaluate.benchmarks.question import CountTokens, Question
from acc_megatron.evaluate.checks import check_at_least
from acc_megatron.evaluate.models.prompt import Answer, Ask, Outcome, Prompt
from acc_megatron.evaluate.results_format import BenchmarkResult, Item


@dataclass(frozen=True, kw_only=True)
class RowSettings(BenchmarkSettings):
    """Published `rows` (files or globs). Rows whose text is longer than `max_chars` are left out and counted."""

    rows: list[str] = field(default_factory=list)
    max_chars: int | None = None

    def check(self, given: Collection[str], where: str) -> None:
        """Raise ConfigError if a kind without a generator has no rows."""
        super().check(given, where)
        if not self.rows and not isinstance(self, GeneratorSettings):
            raise ConfigError(f"{where}.rows is missing: {self.kind} has no generator")


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(RowSettings):
    """Published `rows`, or without them `items` generated rows of every length."""

    items: int = 8
    length_tokens: list[int] = field(default_factory=lambda: [4096])

    def check(self, given: Collection[str], where: str) -> None:
        """Raise ConfigError for values that cannot work, or keys of the generator next to `rows`."""
        super().check(given, where)
        for key in (one.name for one in fields(self)):
            if self.rows and key in given and key not in {one.name for one in fields(RowSettings)}:
                raise ConfigError(f"{where}.{key} is for generated rows, but rows names files; use limit or max_chars")
        check_at_least(f"{where}.items", self.items, 1)
        check_positive(f"{where}.length_tokens", self.length_tokens)


def check_positive(name: str, values: Sequence[int]) -> None:
    """Raise ConfigError unless `values` is one or more positive numbers."""
    if not values or min(values) < 1:
        raise ConfigError(f"{name} must be one or more positive numbers, got {values}")


S = TypeVar("S", bound=RowSettings)


class QuestionBenchmark(ABC, Generic[S]):
    """A benchmark of questions. A subclass states the class variables and how one row becomes a question.

    `columns` are read from published files; `text_column` is the one that `max_chars` bounds. `metrics` are the keys of
    the grader's result that count as scores.
    """

    kind: ClassVar[str]
    settings: ClassVar[type[RowSettings]]
    metrics: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]]
    text_column: ClassVar[str]
    paper_columns: ClassVar[tuple[PaperColumn, ...]] = ()
    length_note: ClassVar[str] = ""

    @property
    def headline(self) -> str:
        """The first metric."""
        return self.metrics[0]

    @abstractmethod
    def published(self, row: Mapping[str, Any], where: str, count_tokens: CountTokens) -> Question:
        """The question of a published row. Raises DataError, naming `where`, for a row of another shape."""

    def generate(self, settings: S, length_tokens: int, seed: int, count_tokens: CountTokens) -> Iterable[Question]:
        """`settings.items` questions of a length; a kind without a generator need not implement it."""
        raise NotImplementedError

    def prepare(self, name: str, settings: S, draw: Draw, count_tokens: CountTokens) -> PreparedBenchmark:
        """The questions, sampled by seed. Raises AccError for settings or rows that cannot be used."""
        questions, left_out = self.questions(name, settings, draw, count_tokens)

        def run(ask: Ask) -> Graded:
            prompts = [
                Prompt(id=one.id, messages=one.messages, max_new_tokens=settings.max_new_tokens, repeat=repeat)
                for one in questions
                for repeat in range(draw.repeats)
            ]
            outcomes = ask(prompts)
            by_question = [outcomes[start : start + draw.repeats] for start in range(0, len(outcomes), draw.repeats)]
            return Graded(self._graded_items(name, questions, by_question))

        return PreparedBenchmark(
            run=run,
            generated=not settings.rows,
            left_out=left_out,
            corrected_truths=sum(question.corrected for question in questions),
        )

    def questions(
        self, name: str, settings: S, draw: Draw, count_tokens: CountTokens
    ) -> tuple[list[Question], dict[str, int]]:
        """The questions, and how many rows were left out by reason. Ids begin with `name`."""
        if settings.rows:
            questions, left_out = self._from_files(name, settings, draw, count_tokens)
        else:
            questions, left_out = self._from_generator(settings, draw, count_tokens)
        num_shared_ids = len(questions) - len({question.id for question in questions})
        if num_shared_ids:
            raise DataError(f"benchmarks.{name}: {num_shared_ids} questions share an id with another")
        return [replace(one, id=f"{name}/{one.id}") for one in questions], left_out

    def describe_rows(self, result: BenchmarkResult, settings: Mapping[str, Any], tokenizer: str) -> str:
        """Where the rows are from, the tokenizer of the lengths, and what was left out or corrected."""
        notes = [f"{self.kind}, {'generated rows' if result['generated'] else 'rows from files'}"]
        notes.append(f"lengths in tokens of {tokenizer}{self.length_note}")
        if result["left_out"]:
            notes.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in result["left_out"].items()))
        if result["corrected_truths"]:
            notes.append(f"{result['corrected_truths']:,} published answers corrected")
        return "; ".join(notes)

    def _from_files(
        self, name: str, settings: S, draw: Draw, count_tokens: CountTokens
    ) -> tuple[list[Question], dict[str, int]]:
        rows, left_out = sample_rows(
            find_files(settings.rows),
            self.columns,
            self.text_column,
            max_chars=settings.max_chars,
            limit=draw.limit,
            seed=draw.seed,
        )
        if not rows:
            raise DataError(f"benchmarks.{name}: no row remains, left out: {dict(left_out)}; raise max_chars")
        return [self.published(placed.row, placed.where, count_tokens) for placed in rows], dict(left_out)

    def _from_generator(
        self, settings: S, draw: Draw, count_tokens: CountTokens
    ) -> tuple[list[Question], dict[str, int]]:
        assert isinstance(settings, GeneratorSettings)
        by_length = [
            list(self.generate(settings, length, draw.seed, count_tokens)) for length in settings.length_tokens
        ]
        questions = _share(by_length, draw.limit)
        left_out = Counter(not_sampled=sum(map(len, by_length)) - len(questions))
        return questions, dict(+left_out)

    def _graded_items(
        self, name: str, questions: Sequence[Question], outcomes: Sequence[Sequence[Outcome]]
    ) -> list[Item]:
        """Items with every answer and its scores; `outcomes` has the repeats of each question.

        A question without any answer gives no item: a score of zero would say that the model was wrong.
        """
        items: list[Item] = []
        for question, repeats in zip(questions, outcomes, strict=True):
            answers = [
                graded_answer(outcome, repeat, question.grade(outcome.response))
                for repeat, outcome in enumerate(repeats)
                if isinstance(outcome, Answer)
            ]
            if answers:
                items.append(
                    {
                        "id": question.id,
                        "benchmark": name,
                        "groups": question.groups,
                        "prompt_sha256": question.sha256,
                        "num_tokens": question.num_tokens,
                        "answers": answers,
                        "scores": {
                            metric: sum(answer["scores"][metric] for answer in answers) / len(answers)
                            for metric in self.metrics
                        },
                    }
                )
        return items


def _share(by_length: list[list[Question]], limit: int | None) -> list[Question]:
    """At most `limit` questions: every length keeps its share, and kinds that alternate keep alternating."""
    total = sum(map(len, by_length))
    if limit is None or limit >= total:
        return [question for questions in by_length for question in questions]
    chosen: list[Question] = []
    for number, questions in enumerate(by_length, start=1):
        start = len(chosen)
        more = -(-limit * number // len(by_length)) - start  # rounded up: a limit of 1 asks the first length
        chosen += [questions[index % len(questions)] for index in range(start, start + more)]
    return chosen
