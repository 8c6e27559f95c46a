"""The text of a GraphWalks prompt, character for character as published.

The corrected wording of 27 February 2026 is quoted from section 2.18.2 of the Claude Opus 4.6 system card, which
proposed it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.checks import check_at_least, check_choice

Operation = Literal["parents", "bfs"]
Wording = Literal["original", "corrected"]
Edge = tuple[str, str]  # source, target

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


def prompt(
    edges: Sequence[Edge], operation: Operation, node: str, depth: int | None = None, wording: Wording = "original"
) -> str:
    """The prompt for a list of edges; only `bfs` reads `depth`.

    Raises ConfigError for an unknown operation or wording, or a depth below 1.
    """
    check_choice("wording", wording, get_args(Wording))
    check_operation(operation, depth)
    if operation == "bfs":
        task = _BFS_TASK[wording].format(node=node, depth=depth)
    else:
        task = f"Find the parents of node {node}."
    opening = _OPENING.format(bfs_rule=_BFS_RULE[wording])
    lines = "".join(f"{source} -> {target}\n" for source, target in edges)
    return f"{opening}{_EXAMPLES}{lines}\n\nOperation:\n{task}\n\n{_CLOSING}"


def check_operation(operation: Operation, depth: int | None) -> None:
    """Raise ConfigError for an unknown operation, or a BFS without a depth of at least 1."""
    check_choice("operation", operation, get_args(Operation))
    if operation == "bfs":
        if depth is None:
            raise ConfigError("a bfs needs a depth of at least 1")
        check_at_least("depth", depth, 1)
