"""From a benchmark's settings to its questions: published rows read and sampled, or rows of our generators."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import cast

from acc_megatron.errors import DataError
from acc_megatron.evaluate import graphwalks, mrcr, multiple_choice
from acc_megatron.evaluate.items import CountTokens, Operation, Question, Row
from acc_megatron.evaluate.rows import Placed, find_files, sample_rows
from acc_megatron.evaluate.settings import BenchmarkSettings, RunSettings

METRICS: dict[str, tuple[str, ...]] = {
    graphwalks.NAME: graphwalks.METRICS,
    mrcr.NAME: mrcr.METRICS,
    multiple_choice.NAME: multiple_choice.METRICS,
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    graphwalks.NAME: ("prompt", "answer_nodes", "problem_type"),
    mrcr.NAME: tuple(field.name for field in fields(Row)),
    multiple_choice.NAME: multiple_choice.COLUMNS,
}


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions of one benchmark, and what was left out or corrected on the way, by reason."""

    questions: list[Question]
    left_out: dict[str, int]
    corrected_truths: int


def make_questions(name: str, benchmark: BenchmarkSettings, run: RunSettings, count_tokens: CountTokens) -> QuestionSet:
    """The questions of benchmark `name`, the same for every model. Raises AccError, by file and line or by key."""
    left_out: Counter[str] = Counter()
    corrected = 0
    if benchmark.rows:
        text = "context" if benchmark.kind == multiple_choice.NAME else "prompt"
        rows, left_out = sample_rows(
            find_files(benchmark.rows),
            _COLUMNS[benchmark.kind],
            text,
            max_chars=benchmark.max_chars,
            limit=run.limit,
            seed=run.seed,
        )
        if not rows:
            raise DataError(f"benchmarks.{name}: no row is left of {dict(left_out)}; raise max_chars")
        questions = []
        for placed in rows:
            made, was_corrected = _published(benchmark, placed, count_tokens)
            questions.append(made)
            corrected += was_corrected
    else:
        by_length = [list(_generated(benchmark, length, run, count_tokens)) for length in benchmark.length_tokens]
        questions = _share(by_length, run.limit)
        if left := sum(map(len, by_length)) - len(questions):
            left_out["not_sampled"] = left
    ids = {question.id for question in questions}
    if len(ids) < len(questions):
        raise DataError(f"benchmarks.{name}: {len(questions) - len(ids)} questions share an id with another")
    return QuestionSet(
        [replace(one, id=f"{name}/{one.id}", benchmark=name) for one in questions], dict(left_out), corrected
    )


def _share(by_length: list[list[Question]], limit: int | None) -> list[Question]:
    """At most `limit` questions: every length keeps its share, and the kinds that take turns go on taking them."""
    total = sum(map(len, by_length))
    if limit is None or limit >= total:
        return [question for made in by_length for question in made]
    chosen: list[Question] = []
    for number, made in enumerate(by_length, start=1):
        start = len(chosen)
        more = -(-limit * number // len(by_length)) - start  # rounded up, so that a limit of 1 asks the first length
        chosen += [made[place % len(made)] for place in range(start, start + more)]
    return chosen


def _published(benchmark: BenchmarkSettings, placed: Placed, count_tokens: CountTokens) -> tuple[Question, bool]:
    where, row = placed
    if benchmark.kind == graphwalks.NAME:
        item = graphwalks.from_row(row, where)
        better = graphwalks.without_own_node(item)
        return graphwalks.question(better, count_tokens), better != item
    if benchmark.kind == mrcr.NAME:
        return mrcr.question(mrcr.from_row(row, where), where, count_tokens), False
    return multiple_choice.question(row, where, count_tokens), False


def _generated(
    benchmark: BenchmarkSettings, length_tokens: int, run: RunSettings, count_tokens: CountTokens
) -> Iterator[Question]:
    if benchmark.kind == graphwalks.NAME:
        for item in graphwalks.make_items(
            benchmark.items,
            length_tokens=length_tokens,
            count_tokens=count_tokens,
            seed=run.seed,
            operations=cast(list[Operation], benchmark.operations),
            wording=benchmark.wording,
        ):
            yield graphwalks.question(item, count_tokens)
        return
    rows = mrcr.make_rows(
        benchmark.items,
        length_tokens=length_tokens,
        count_tokens=count_tokens,
        seed=run.seed,
        needles=benchmark.needles,
    )
    for number, row in enumerate(rows):
        yield mrcr.question(row, f"{length_tokens}/{run.seed}/{number}", count_tokens)
