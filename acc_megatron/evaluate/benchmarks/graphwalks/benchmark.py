"""GraphWalks as a benchmark of `eval`: its settings, its rows and its place in the paper."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast, get_args

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.graphwalks.grader import METRICS, grade
from acc_megatron.evaluate.benchmarks.graphwalks.problem import GraphProblem, make_problems
from acc_megatron.evaluate.benchmarks.graphwalks.prompt import Operation, Wording
from acc_megatron.evaluate.benchmarks.paper import PaperColumn
from acc_megatron.evaluate.benchmarks.question import CountTokens, Question, length_bin
from acc_megatron.evaluate.benchmarks.question_benchmark import GeneratorSettings, QuestionBenchmark

_PARENTS_OF = re.compile(r"Find the parents of node (\w+)\.\s+You should immediately")


@dataclass(frozen=True, kw_only=True)
class GraphWalksSettings(GeneratorSettings):
    """Generated problems alternate between `operations`."""

    operations: list[str] = field(default_factory=lambda: list(get_args(Operation)))
    wording: Wording = "corrected"

    def check(self, given: Collection[str], where: str) -> None:
        """Raise ConfigError for an unknown operation."""
        super().check(given, where)
        if not self.operations or set(self.operations) - set(get_args(Operation)):
            raise ConfigError(f"{where}.operations must be one or both of parents and bfs, got {self.operations}")


class GraphWalks(QuestionBenchmark[GraphWalksSettings]):
    """GraphWalks from the published files or from a generator."""

    kind = "graphwalks"
    settings = GraphWalksSettings
    metrics = METRICS
    columns = ("prompt", "answer_nodes", "problem_type")
    text_column = "prompt"
    paper_columns = (
        PaperColumn(
            "GraphWalks",
            (69.92, 77.51, 76.63),
            ("f1",),
            note="GraphWalks is F1; the paper does not say whether it means F1 or precision, so both are below.",
        ),
        PaperColumn("parents", (71.19, 81.50), ("f1",), group="problem_type", pattern="parents"),
        PaperColumn("BFS", (68.47, 72.95), ("f1",), group="problem_type", pattern="bfs"),
    )

    def published(self, row: Mapping[str, Any], where: str, count_tokens: CountTokens) -> Question:
        """The question of a published row, with the correction of 27 February 2026.

        A node is not its own parent; older answers include it.
        """
        problem = problem_of(row, where)
        asked = _PARENTS_OF.search(problem.prompt) if problem.problem_type == "parents" else None
        nodes = tuple(node for node in problem.answer_nodes if asked is None or node != asked[1])
        return question(problem, count_tokens, nodes)

    def generate(
        self, settings: GraphWalksSettings, length_tokens: int, seed: int, count_tokens: CountTokens
    ) -> Iterator[Question]:
        """Problems that fill `length_tokens`."""
        for problem in make_problems(
            settings.items,
            length_tokens=length_tokens,
            count_tokens=count_tokens,
            seed=seed,
            operations=cast(list[Operation], settings.operations),
            wording=settings.wording,
        ):
            yield question(problem, count_tokens, problem.answer_nodes)


def problem_of(row: Mapping[str, Any], where: str) -> GraphProblem:
    """The problem of a published row; `where` names the row and becomes its id. Raises DataError for another shape."""
    text, nodes, kind = row.get("prompt"), row.get("answer_nodes"), row.get("problem_type")
    if not isinstance(text, str) or kind not in ("parents", "bfs"):
        raise DataError(f"{where}: a GraphWalks row needs 'prompt' (text) and 'problem_type' (parents or bfs)")
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise DataError(f"{where}: 'answer_nodes' must be a list of node names, got {type(nodes).__name__}")
    return GraphProblem(id=where, prompt=text, answer_nodes=tuple(nodes), problem_type=kind)


def question(problem: GraphProblem, count_tokens: CountTokens, answer_nodes: tuple[str, ...]) -> Question:
    """The problem as one user message, grouped by operation, wording and length."""
    num_tokens = count_tokens(problem.prompt)
    return Question(
        id=problem.id,
        groups={
            "problem_type": problem.problem_type,
            "wording": "corrected" if "exactly at that depth" in problem.prompt else "original",
            "bin_tokens": length_bin(num_tokens),
        },
        messages=({"role": "user", "content": problem.prompt},),
        grade=partial(grade, answer_nodes=answer_nodes),
        num_tokens=num_tokens,
        corrected=answer_nodes != problem.answer_nodes,
    )
