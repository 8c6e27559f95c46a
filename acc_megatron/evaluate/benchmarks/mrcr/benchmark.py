"""MRCR as a benchmark of `eval`: its settings, its rows and its place in the paper."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise
from typing import Any

from acc_megatron.evaluate.benchmarks.mrcr.generator import make_rows
from acc_megatron.evaluate.benchmarks.mrcr.grader import METRICS, grade
from acc_megatron.evaluate.benchmarks.mrcr.rows import MrcrRow, from_row, messages_of
from acc_megatron.evaluate.benchmarks.paper import PaperColumn
from acc_megatron.evaluate.benchmarks.question import CountTokens, Question
from acc_megatron.evaluate.benchmarks.question_benchmark import GeneratorSettings, QuestionBenchmark, check_positive

BIN_EDGES_TOKENS = tuple(4096 << i for i in range(9))  # 8 doubling bins, 4,096 to 1,048,576


@dataclass(frozen=True, kw_only=True)
class MrcrSettings(GeneratorSettings):
    """Generated rows alternate between the counts in `needles`."""

    needles: list[int] = field(default_factory=lambda: [2, 4])

    def check(self, given: Collection[str], where: str) -> None:
        """Raise ConfigError for a needle count below 1."""
        super().check(given, where)
        check_positive(f"{where}.needles", self.needles)


class Mrcr(QuestionBenchmark[MrcrSettings]):
    """MRCR from the published files or from a generator."""

    kind = "mrcr"
    settings = MrcrSettings
    metrics = METRICS
    columns = tuple(column.name for column in fields(MrcrRow))
    text_column = "prompt"
    length_note = ", where the published bins count tokens of o200k_base"
    paper_columns = (
        PaperColumn(
            "MRCR",
            (50.19, 68.28, 67.51),
            ("score",),
            total_of={"n_needles": frozenset(("2", "4"))},
            note="MRCR is the mean ratio.",
        ),
        PaperColumn("2 needles", (61.84, 76.90), ("score",), group="n_needles", pattern="2"),
        PaperColumn("4 needles", (38.41, 59.57), ("score",), group="n_needles", pattern="4"),
    )

    def published(self, row: Mapping[str, Any], where: str, count_tokens: CountTokens) -> Question:
        """The question of a published row."""
        return question(from_row(row, where), where, count_tokens)

    def generate(
        self, settings: MrcrSettings, length_tokens: int, seed: int, count_tokens: CountTokens
    ) -> Iterator[Question]:
        """Rows that fill `length_tokens`."""
        rows = make_rows(
            settings.items, length_tokens=length_tokens, count_tokens=count_tokens, seed=seed, needles=settings.needles
        )
        for number, row in enumerate(rows):
            yield question(row, f"{length_tokens}/{seed}/{number}", count_tokens)


def question(row: MrcrRow, row_id: str, count_tokens: CountTokens) -> Question:
    """The row as a question, grouped by needle count and by the bin of its length under this token count."""
    messages = messages_of(row, row_id)
    num_tokens = sum(count_tokens(message["content"]) for message in messages)
    return Question(
        id=row_id,
        groups={"n_needles": str(row.n_needles), "bin_tokens": bin_name(num_tokens + count_tokens(row.answer))},
        messages=tuple(messages),
        grade=partial(grade, answer=row.answer, random_string_to_prepend=row.random_string_to_prepend),
        num_tokens=num_tokens,
    )


def bin_name(num_tokens: int) -> str:
    """The bin of a row by the tokens of all contents and the answer, such as `8192-16384`, or `out of range`.

    Bins include their lower bound; the last one includes its upper bound too.
    """
    for low, high in pairwise(BIN_EDGES_TOKENS):
        if low <= num_tokens < high or num_tokens == high == BIN_EDGES_TOKENS[-1]:
            return f"{low}-{high}"
    return "out of range"
