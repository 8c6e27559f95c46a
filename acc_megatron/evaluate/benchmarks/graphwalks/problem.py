"""Seeded GraphWalks problems and their solutions.

As in the published rows, node i is named by the md5 of its number and `out_degree` edges are listed for each source in
order; targets are uniform with repetition, so duplicate edges and self-loops occur.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.benchmarks.graphwalks.prompt import Edge, Operation, Wording, check_operation, prompt
from acc_megatron.evaluate.benchmarks.question import CountTokens, item_seed
from acc_megatron.evaluate.checks import check_at_least

_FIT_PROBES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphProblem:
    """One GraphWalks problem; `settings` says how it was generated and is empty for a published row."""

    id: str
    prompt: str
    answer_nodes: tuple[str, ...]
    problem_type: Operation
    settings: dict[str, Any] = field(default_factory=dict)


def solve(edges: Iterable[Edge], operation: Operation, node: str, depth: int | None = None) -> list[str]:
    """The nodes that the operation results in, in order of discovery.

    The parents of a node never include the node itself, even with a self-loop (the correction of 27 February 2026).
    BFS returns the nodes whose shortest distance from `node` is exactly `depth` edges.
    """
    check_operation(operation, depth)
    if operation == "parents":
        return list(dict.fromkeys(source for source, target in edges if target == node and source != node))
    assert depth is not None
    targets: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        targets[source].append(target)
    frontier, seen = [node], {node}
    for _ in range(depth):
        reached = (target for source in frontier for target in targets[source])
        frontier = [target for target in dict.fromkeys(reached) if target not in seen]
        seen.update(frontier)
    return frontier


def make_problem(
    num_nodes: int,
    out_degree: int,
    operation: Operation,
    seed: int,
    depth: int | None = None,
    wording: Wording = "corrected",
) -> GraphProblem:
    """One seeded problem on a random graph of `num_nodes * out_degree` edges about a uniformly chosen node."""
    check_at_least("num_nodes", num_nodes, 1)
    check_at_least("out_degree", out_degree, 1)
    rng = random.Random(seed)
    names = [hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest()[:10] for i in range(num_nodes)]
    if len(set(names)) < num_nodes:
        raise ConfigError(
            f"two of {num_nodes} nodes get the same 10-digit name; use fewer nodes or a larger out_degree"
        )
    edges = [(source, names[rng.randrange(num_nodes)]) for source in names for _ in range(out_degree)]
    node = names[rng.randrange(num_nodes)]
    depth = depth if operation == "bfs" else None
    return GraphProblem(
        id=f"graphwalks/{operation}/{num_nodes}x{out_degree}/{depth or 0}/{wording}/{seed}",
        prompt=prompt(edges, operation, node, depth, wording),
        answer_nodes=tuple(solve(edges, operation, node, depth)),
        problem_type=operation,
        settings={
            "num_nodes": num_nodes,
            "out_degree": out_degree,
            "node": node,
            "depth": depth,
            "wording": wording,
            "seed": seed,
        },
    )


def make_problems(
    count: int,
    *,
    length_tokens: int | None = None,
    length_chars: int | None = None,
    count_tokens: CountTokens | None = None,
    seed: int,
    operations: Sequence[Operation] = ("parents", "bfs"),
    out_degree: int = 4,
    depths: Sequence[int] = (1, 2, 3),
    wording: Wording = "corrected",
) -> list[GraphProblem]:
    """`count` problems whose prompts fill a length in tokens or in characters without exceeding it.

    Operations alternate; the seed chooses one of `depths` for a BFS. Raises ConfigError unless exactly one length is
    given (a length in tokens needs `count_tokens`), or if even the smallest graph does not fit.
    """
    if (length_tokens is None) == (length_chars is None):
        raise ConfigError("give exactly one of length_tokens and length_chars")
    if length_tokens is not None and count_tokens is None:
        raise ConfigError("length_tokens needs count_tokens, the function that counts the tokens of a text")
    limit = length_tokens if length_tokens is not None else length_chars
    measure = count_tokens if length_tokens is not None else len
    assert limit is not None and measure is not None
    problems = []
    for index in range(count):
        seed_here = item_seed("graphwalks", seed, index)
        operation = operations[index % len(operations)]
        depth = random.Random(seed_here).choice(depths) if operation == "bfs" else None
        make = partial(
            make_problem, out_degree=out_degree, operation=operation, seed=seed_here, depth=depth, wording=wording
        )
        problems.append(_fit(limit, measure, make))
    return problems


def _fit(limit: int, measure: CountTokens, make: Callable[[int], GraphProblem]) -> GraphProblem:
    """The problem that fills `limit` to within two nodes, or the largest below it of a dozen probes."""
    best = make(1)
    least = measure(best.prompt)
    if least > limit:
        raise ConfigError(
            f"a GraphWalks prompt of one node has length {least}, over the limit of {limit}; raise the limit"
        )
    per_node = (measure(make(33).prompt) - least) / 32
    num_nodes, best_size = 1 + int((limit - least) / per_node), least
    for _ in range(_FIT_PROBES):
        problem = make(num_nodes)
        size = measure(problem.prompt)
        if best_size < size <= limit:
            best, best_size = problem, size
        step = int((limit - size) // per_node)  # rounds down: grows to just under the limit, shrinks below it
        if step in (0, 1):
            break
        num_nodes = max(1, num_nodes + step)
    return best
