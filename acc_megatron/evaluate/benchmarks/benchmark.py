"""The interface of a benchmark. Kinds of benchmarks are registered in registry.py."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from acc_megatron.evaluate.benchmarks.paper import PaperColumn
from acc_megatron.evaluate.benchmarks.question import CountTokens
from acc_megatron.evaluate.checks import check_at_least
from acc_megatron.evaluate.models.prompt import Answer, Ask
from acc_megatron.evaluate.results_format import BenchmarkResult, GradedAnswer, Item


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """The keys that the table [benchmarks.NAME] of every kind accepts; each kind adds its own in a subclass."""

    kind: str
    max_new_tokens: int = 4096

    def check(self, given: Collection[str], where: str) -> None:
        """Raise ConfigError for a value that cannot work; `given` are the keys that the table contains."""
        check_at_least(f"{where}.max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which questions are asked: the seed, at most `limit` rows of each benchmark or task, and samples of each."""

    seed: int
    limit: int | None
    repeats: int


@dataclass(frozen=True, slots=True)
class Graded:
    """One model's graded items; `extra` is added to its summary in results.json."""

    items: list[Item]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBenchmark:
    """A benchmark that is ready to be asked: `run` asks one model every question and grades the answers.

    `left_out` counts rows that are not asked, by reason; `corrected_truths` counts corrected published answers.
    """

    run: Callable[[Ask], Graded]
    generated: bool = False
    left_out: dict[str, int] = field(default_factory=dict)
    corrected_truths: int = 0


S = TypeVar("S", bound=BenchmarkSettings, contravariant=True)


class Benchmark(Protocol[S]):
    """One kind of benchmark. QuestionBenchmark implements all of it for rows from files or from a generator."""

    @property
    def kind(self) -> str:
        """The value of `kind` in the settings."""

    @property
    def settings(self) -> type[BenchmarkSettings]:
        """The dataclass of the keys that the settings accept."""

    @property
    def headline(self) -> str | None:
        """The metric that reports show first."""

    @property
    def paper_columns(self) -> tuple[PaperColumn, ...]:
        """The columns of the paper's tables that this benchmark fills."""

    def prepare(self, name: str, settings: S, draw: Draw, count_tokens: CountTokens) -> PreparedBenchmark:
        """Load or generate the questions of [benchmarks.`name`], the same for every model.

        Raises AccError for anything that can be known before a question is asked.
        """

    def describe_rows(self, result: BenchmarkResult, settings: Mapping[str, Any], tokenizer: str) -> str:
        """One line for the report: where the rows are from, what was left out and what was corrected."""


def graded_answer(outcome: Answer, repeat: int, scores: dict[str, float]) -> GradedAnswer:
    """An answer as it is written to the results."""
    return {
        "repeat": repeat,
        "response": outcome.response,
        "reasoning_chars": outcome.reasoning_chars,
        "finish_reason": outcome.finish_reason,
        "prompt_tokens": outcome.prompt_tokens,
        "new_tokens": outcome.new_tokens,
        "scores": scores,
    }
