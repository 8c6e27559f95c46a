"""GraphWalks (openai/graphwalks, MIT): prompts as published, a seeded generator, and a strict and a flexible grader.

The published rows name node i by md5 of its number and list `out_degree` edges for each source in order; targets are
uniform with repetition, so duplicate edges and self-loops occur. The corrected wording of 27 February 2026 is quoted
from section 2.18.2 of the Claude Opus 4.6 system card, which proposed it.
"""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.items import (
    CountTokens,
    Item,
    Operation,
    Question,
    Wording,
    check_at_least,
    check_choice,
    item_seed,
    length_bin,
    strip_thinking,
)

NAME = "graphwalks"
METRICS = ("f1", "precision", "recall", "flexible_f1", "flexible_precision", "flexible_recall")
Edge = tuple[str, str]

_OPENING = (
    "You will be given a graph as a list of directed edges. All nodes are at least degree 1. You will also get a "
    "description of an operation to perform on the graph.\n\n"
    "Your job is to execute the operation on the graph and return the set of nodes that the operation results in. "
    "If asked for a breadth-first search (BFS), only return the nodes that are {bfs_rule} do not return the starting "
    "node. If asked for the parents of a node, only return the nodes that have an edge leading to the given node, do "
    "not return the given node itself.\n\n"
)
_BFS_RULE: dict[Wording, str] = {
    "original": "reachable at that depth,",
    "corrected": "both reachable and exactly at that depth (not nodes at intermediate depths), and",
}
_EXAMPLES = """\
Here is an example:
<begin example>

The graph has the following edges:
uvwx -> alke
abcd -> uvwx
abcd -> efgh
efgh -> uvwx

Example 1:
Operation:
Perform a BFS from node abcd with depth 1.
Final Answer: [uvwx, efgh]

Example 2:
Operation:
Perform a BFS from node alke with depth 1.
Final Answer: []

Example 3:
Operation:
Find the parents of node uvwx.
Final Answer: [abcd, efgh]

Example 4:
Operation:
Find the parents of node abcd.
Final Answer: []

<end example>
Here is the graph to operate on:
The graph has the following edges:
"""
_BFS_TASK: dict[Wording, str] = {
    "original": "Perform a BFS from node {node} with depth {depth}.",
    "corrected": "Perform a BFS from node {node} and return only the nodes at exactly depth {depth} "
    "(not nodes at intermediate depths).",
}
_CLOSING = (
    "You should immediately return the set of nodes that the operation results in, with no additional text. Return "
    "your final answer as a list of nodes in the very last line of your response. For example, if the operation "
    "returns the set of nodes [node1, node2, node3], your response should be:\n"
    "Final Answer: [node1, node2, node3]\n"
    "If the operation returns the empty set, your response should be:\n"
    "Final Answer: []\n"
)
# as published, `Final Answer: ?\[.*\]`; what stands inside is found from the end, in linear time for any text
_FINAL_ANSWER = re.compile(r"Final Answer: ?\[")
_FLEXIBLE_ANSWER = re.compile(r"final answer[\s:(]*(?:is\b[\s:(]*)?\[([^\[\]]*)\]", re.IGNORECASE)
_MARKUP = re.compile(r"\\[\[\]()]|\\(?:boxed|text\w*|math\w+|left|right)|[*`$\\{}]")  # of Markdown and LaTeX
_PARENTS_OF = re.compile(r"Find the parents of node (\w+)\.\s+You should immediately")
_FIT_PROBES = 12


def prompt(
    edges: Sequence[Edge], operation: Operation, node: str, depth: int | None = None, wording: Wording = "original"
) -> str:
    """The prompt text for a list of (source, target) edges, character for character as published.

    `depth` is read for `bfs` alone. Raises ConfigError for an unknown operation or wording, or a depth below 1.
    """
    check_choice("wording", wording, get_args(Wording))
    _check_operation(operation, depth)
    if operation == "bfs":
        task = _BFS_TASK[wording].format(node=node, depth=depth)
    else:
        task = f"Find the parents of node {node}."
    opening = _OPENING.format(bfs_rule=_BFS_RULE[wording])
    lines = "".join(f"{source} -> {target}\n" for source, target in edges)
    return f"{opening}{_EXAMPLES}{lines}\n\nOperation:\n{task}\n\n{_CLOSING}"


def solve(edges: Iterable[Edge], operation: Operation, node: str, depth: int | None = None) -> list[str]:
    """The nodes the operation results in, in order of discovery.

    Parents of a node leave out the node itself even where it has a self-loop (the correction of 27 February 2026);
    BFS gives the nodes whose shortest distance from `node` is exactly `depth` edges.
    """
    _check_operation(operation, depth)
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


def make_item(
    num_nodes: int,
    out_degree: int,
    operation: Operation,
    seed: int,
    depth: int | None = None,
    wording: Wording = "corrected",
) -> Item:
    """One seeded problem on a random graph of `num_nodes * out_degree` edges; the node asked about is uniform."""
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
    return Item(
        id=f"{NAME}/{operation}/{num_nodes}x{out_degree}/{depth or 0}/{wording}/{seed}",
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


def make_items(
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
) -> list[Item]:
    """`count` problems whose prompts fill a length in tokens or in characters without passing it.

    Operations take turns; a BFS takes one of `depths` by its seed. Raises ConfigError unless exactly one length is
    given (a length in tokens needs `count_tokens`), or when even the smallest graph does not fit.
    """
    if (length_tokens is None) == (length_chars is None):
        raise ConfigError("give exactly one of length_tokens and length_chars")
    if length_tokens is not None and count_tokens is None:
        raise ConfigError("length_tokens needs count_tokens, the function that counts the tokens of a text")
    limit = length_tokens if length_tokens is not None else length_chars
    measure = count_tokens if length_tokens is not None else len
    assert limit is not None and measure is not None
    items = []
    for index in range(count):
        seed_here = item_seed(NAME, seed, index)
        operation = operations[index % len(operations)]
        depth = random.Random(seed_here).choice(depths) if operation == "bfs" else None
        make = partial(
            make_item, out_degree=out_degree, operation=operation, seed=seed_here, depth=depth, wording=wording
        )
        items.append(_fit(limit, measure, make))
    return items


def _fit(limit: int, measure: CountTokens, make: Callable[[int], Item]) -> Item:
    """The item that fills `limit` to within two nodes, or the nearest below it of a dozen probes."""
    best = make(1)
    least = measure(best.prompt)
    if least > limit:
        raise ConfigError(f"a GraphWalks prompt of one node has length {least}, over the limit of {limit}; raise it")
    per_node = (measure(make(33).prompt) - least) / 32
    num_nodes, best_size = 1 + int((limit - least) / per_node), least
    for _ in range(_FIT_PROBES):
        item = make(num_nodes)
        size = measure(item.prompt)
        if best_size < size <= limit:
            best, best_size = item, size
        step = int((limit - size) // per_node)  # rounds down: up to just under the limit, or down past it
        if step in (0, 1):
            break
        num_nodes = max(1, num_nodes + step)
    return best


def grade(response: str, answer_nodes: Iterable[str]) -> dict[str, float]:
    """Set F1, precision and recall, strict (last line alone) and flexible (last answer wherever it stands).

    The strict rule is the dataset card's: the last line must hold `Final Answer: [...]`; trailing white space is no
    line. The flexible one takes the last answer of the text, as lm-eval's `flexible_f1` does, and forgives what is
    only form: Markdown and LaTeX around it, the case of the two words, a list over several lines, and quotes around
    nodes. An answer that is not found scores 0, also where the truth is empty. Two empty sets score 1 (lm-eval gives
    0), disjoint ones 0 (the card's literal `else 1` gives 1). Thinking is removed first.
    """
    truth = set(answer_nodes)
    text = strip_thinking(response).rstrip()
    strict = _strict_answer(text.rpartition("\n")[2])
    flexible = _flexible_answer(text)
    return _set_scores(strict, truth) | {f"flexible_{k}": v for k, v in _set_scores(flexible, truth).items()}


def _strict_answer(line: str) -> set[str] | None:
    opened, end = _FINAL_ANSWER.search(line), line.rfind("]")
    return _nodes(line[opened.end() : end]) if opened and opened.end() <= end else None


def _flexible_answer(text: str) -> set[str] | None:
    found = _FLEXIBLE_ANSWER.findall(_MARKUP.sub("", text))
    return {node.strip("'\"") for node in _nodes(found[-1])} if found else None


def _nodes(listed: str) -> set[str]:
    return {node.strip() for node in listed.split(",") if node.strip()}


def _set_scores(found: set[str] | None, truth: set[str]) -> dict[str, float]:
    if found is None:
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    if not found and not truth:
        return {"f1": 1.0, "precision": 1.0, "recall": 1.0}
    overlap = len(found & truth)
    precision = overlap / len(found) if found else 0.0
    recall = overlap / len(truth) if truth else 0.0
    f1 = 2 * precision * recall / (precision + recall) if overlap else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def from_row(row: Mapping[str, Any], where: str) -> Item:
    """A published row; `where` names it in errors and becomes its id. Raises DataError for another shape."""
    text, nodes, kind = row.get("prompt"), row.get("answer_nodes"), row.get("problem_type")
    if not isinstance(text, str) or kind not in ("parents", "bfs"):
        raise DataError(f"{where}: a GraphWalks row needs 'prompt' (text) and 'problem_type' (parents or bfs)")
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise DataError(f"{where}: 'answer_nodes' must be a list of node names, got {type(nodes).__name__}")
    return Item(id=where, prompt=text, answer_nodes=tuple(nodes), problem_type=kind)


def without_own_node(item: Item) -> Item:
    """The item with the correction of 27 February 2026: no node is its own parent, whatever an older truth says."""
    asked = _PARENTS_OF.search(item.prompt)
    if item.problem_type != "parents" or asked is None or asked[1] not in item.answer_nodes:
        return item
    return replace(item, answer_nodes=tuple(node for node in item.answer_nodes if node != asked[1]))


def question(item: Item, count_tokens: CountTokens) -> Question:
    """The item as the runner asks it: one user message, grouped by operation, wording and length."""
    num_tokens = count_tokens(item.prompt)
    return Question(
        id=item.id,
        benchmark=NAME,
        groups={
            "problem_type": item.problem_type,
            "wording": "corrected" if "exactly at that depth" in item.prompt else "original",
            "bin_tokens": length_bin(num_tokens),
        },
        messages=({"role": "user", "content": item.prompt},),
        grade=partial(grade, answer_nodes=item.answer_nodes),
        num_tokens=num_tokens,
    )


def _check_operation(operation: Operation, depth: int | None) -> None:
    check_choice("operation", operation, get_args(Operation))
    if operation == "bfs":
        if depth is None:
            raise ConfigError("a bfs needs a depth of at least 1")
        check_at_least("depth", depth, 1)
