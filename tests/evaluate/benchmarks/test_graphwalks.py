"""GraphWalks: the published text, solutions against all-pairs distances, and every trap of the grader by name."""

import hashlib
import json
import re

import pytest
from support.commands import SHARED_DATA
from support.time_limit import time_limit

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.graphwalks.benchmark import GraphWalks
from acc_megatron.evaluate.benchmarks.graphwalks.grader import METRICS, grade
from acc_megatron.evaluate.benchmarks.graphwalks.problem import make_problem, make_problems, solve
from acc_megatron.evaluate.benchmarks.graphwalks.prompt import prompt

REAL_ROW = SHARED_DATA / "bench" / "graphwalks_one_real_row.json"
EDGE = re.compile(r"^(\w{10}) -> (\w{10})$", re.MULTILINE)
TOY = [("uvwx", "alke"), ("abcd", "uvwx"), ("abcd", "efgh"), ("efgh", "uvwx")]


def reference(edges: list[tuple[str, str]], operation: str, node: str, depth: int | None) -> set[str]:
    """Parents by definition; BFS from all-pairs distances (Floyd and Warshall), an independent algorithm."""
    if operation == "parents":
        return {a for a, b in edges if b == node} - {node}
    nodes = sorted({name for edge in edges for name in edge})
    far = len(nodes) + 1
    distance = {(a, b): 0 if a == b else far for a in nodes for b in nodes}
    for a, b in edges:
        distance[a, b] = min(distance[a, b], 1)
    for via in nodes:
        for a in nodes:
            for b in nodes:
                distance[a, b] = min(distance[a, b], distance[a, via] + distance[via, b])
    return {b for b in nodes if distance[node, b] == depth}


@pytest.mark.data
@pytest.mark.skipif(not REAL_ROW.is_file(), reason="needs ../shared/data")
def test_the_published_row_is_reproduced_exactly():
    row = json.loads(REAL_ROW.read_text())
    edges = EDGE.findall(row["prompt"])
    text = prompt(edges, "parents", "8f14e45fce", None, "original")
    assert len(edges) == 44
    assert len(text) == row["prompt_chars_published"] == 2638
    assert text == row["prompt"]
    assert solve(edges, "parents", "8f14e45fce") == row["answer_nodes"]


@pytest.mark.data
@pytest.mark.skipif(not REAL_ROW.is_file(), reason="needs ../shared/data")
def test_generated_sources_are_the_published_ones_in_order():
    published = [source for source, _ in EDGE.findall(json.loads(REAL_ROW.read_text())["prompt"])]
    problem = make_problem(11, 4, "parents", seed=5)
    assert [source for source, _ in EDGE.findall(problem.prompt)] == published


def test_the_example_graph_has_the_answers_that_the_prompt_states():
    assert set(solve(TOY, "bfs", "abcd", 1)) == {"uvwx", "efgh"}
    assert solve(TOY, "bfs", "alke", 1) == []
    assert set(solve(TOY, "parents", "uvwx")) == {"abcd", "efgh"}
    assert solve(TOY, "parents", "abcd") == []


@pytest.mark.parametrize("operation, depth", [("parents", None), ("bfs", 1), ("bfs", 2), ("bfs", 3)])
def test_solutions_equal_all_pairs_distances_on_random_graphs(operation, depth):
    sizes = set()
    for seed in range(25):
        problem = make_problem(14, 2, operation, seed, depth)
        expected = reference(EDGE.findall(problem.prompt), operation, problem.settings["node"], depth)
        assert len(problem.answer_nodes) == len(set(problem.answer_nodes))
        assert set(problem.answer_nodes) == expected
        sizes.add(len(expected))
    assert len(sizes) > 1  # the graphs have solutions of several sizes


def test_trap_self_loop_is_not_its_own_parent():
    assert solve([("a", "a"), ("b", "a")], "parents", "a") == ["b"]


def test_trap_bfs_leaves_out_a_start_node_that_is_reached_again():
    assert solve([("a", "b"), ("b", "a"), ("b", "c")], "bfs", "a", 2) == ["c"]


def test_trap_bfs_depth_is_the_shortest_distance():
    # c is two steps away through b but also one step away, so it belongs to depth 1 only
    assert solve([("a", "b"), ("b", "c"), ("a", "c")], "bfs", "a", 2) == []


def test_nodes_are_md5_prefixes_and_every_source_has_the_same_degree():
    problem = make_problem(40, 5, "bfs", seed=1, depth=2)
    sources = [source for source, _ in EDGE.findall(problem.prompt)]
    names = [hashlib.md5(str(i).encode()).hexdigest()[:10] for i in range(40)]
    assert names[0] == "cfcd208495"
    assert sources == [name for name in names for _ in range(5)]


def test_duplicate_edges_and_self_loops_occur():
    edges = [edge for seed in range(20) for edge in [EDGE.findall(make_problem(11, 4, "parents", seed).prompt)]]
    assert any(len(set(graph)) < len(graph) for graph in edges)
    assert any(a == b for graph in edges for a, b in graph)


def test_corrected_wording_changes_only_the_bfs_rule_and_the_bfs_task():
    # both sentences as printed in section 2.18.2 of the Claude Opus 4.6 system card
    original, corrected = (prompt(TOY, "bfs", "abcd", 2, wording) for wording in ("original", "corrected"))
    changed = original.replace(
        "only return the nodes that are reachable at that depth, do not return the starting node",
        "only return the nodes that are both reachable and exactly at that depth (not nodes at intermediate depths), "
        "and do not return the starting node",
    ).replace(
        "Perform a BFS from node abcd with depth 2.",
        "Perform a BFS from node abcd and return only the nodes at exactly depth 2 (not nodes at intermediate depths).",
    )
    assert corrected == changed != original


def test_problems_depend_only_on_their_seed():
    first = make_problems(4, length_chars=5000, seed=3)
    assert first == make_problems(4, length_chars=5000, seed=3)
    assert first[:2] == make_problems(2, length_chars=5000, seed=3)
    neighbour = make_problems(4, length_chars=5000, seed=4)
    assert len({problem.settings["seed"] for problem in first + neighbour}) == 8
    assert [problem.problem_type for problem in first] == ["parents", "bfs", "parents", "bfs"]


def test_length_in_characters_is_filled_to_the_last_node():
    for length in (3000, 20_011, 300_000):
        for problem in make_problems(2, length_chars=length, seed=0, out_degree=4):
            assert length - 4 * 25 < len(problem.prompt) <= length  # an edge line has 10 + 4 + 10 + 1 characters


def test_length_in_tokens_is_measured_by_the_given_function():
    def count(text: str) -> int:  # deliberately uneven: two tokens per digit plus a third per character
        return 2 * sum(map(str.isdigit, text)) + len(text) // 3

    for problem in make_problems(4, length_tokens=20_000, count_tokens=count, seed=0):
        assert 19_700 < count(problem.prompt) <= 20_000


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_problems(1, seed=0), "exactly one"),
        (lambda: make_problems(1, seed=0, length_tokens=9, length_chars=9, count_tokens=len), "exactly one"),
        (lambda: make_problems(1, seed=0, length_tokens=9), "count_tokens"),
        (lambda: make_problems(1, seed=0, length_chars=900), "over the limit of 900"),
        (lambda: make_problem(5, 4, "bfs", 0), "depth"),
        (lambda: make_problem(5, 4, "bfs", 0, depth=0), "at least 1"),
        (lambda: make_problem(0, 4, "parents", 0), "num_nodes"),
        (lambda: make_problem(5, 4, "dfs", 0), "'parents', 'bfs'"),
        (lambda: prompt(TOY, "parents", "abcd", None, "newest"), "'original', 'corrected'"),
    ],
)
def test_an_invalid_argument_is_named(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        call()


# The grader. Expected values are calculated by hand from P = overlap / found, R = overlap / truth, F1 = 2PR / (P + R).


def test_grade_is_set_f1_precision_and_recall():
    scores = grade("Final Answer: [a, b, b, x]", ["a", "b", "c", "d"])  # found {a, b, x}: P = 2/3, R = 2/4
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(1 / 2)
    assert scores["f1"] == pytest.approx(4 / 7)
    assert scores["flexible_f1"] == pytest.approx(4 / 7)


def test_trap_two_empty_sets_score_one():
    assert grade("Final Answer: []", [])["f1"] == 1
    assert grade("Final Answer: [ ]", [])["flexible_f1"] == 1


def test_trap_disjoint_sets_score_zero():
    assert set(grade("Final Answer: [a]", ["b"]).values()) == {0}


def test_trap_one_empty_set_scores_zero():
    assert set(grade("Final Answer: []", ["b"]).values()) == {0}
    assert set(grade("Final Answer: [b]", []).values()) == {0}


def test_trap_answer_above_the_last_line_counts_only_in_the_flexible_score():
    scores = grade("Final Answer: [a, b]\nI hope this helps.", ["a", "b"])
    assert (scores["f1"], scores["precision"], scores["recall"]) == (0, 0, 0)
    assert (scores["flexible_f1"], scores["flexible_precision"], scores["flexible_recall"]) == (1, 1, 1)


def test_trap_flexible_score_takes_the_last_answer():
    assert grade("Final Answer: [a]\nFinal Answer: [b]\nbye", ["b"])["flexible_f1"] == 1


def test_trap_a_missing_answer_scores_zero_even_if_no_node_is_expected():
    assert set(grade("There are none.", []).values()) == {0}
    assert set(grade("", []).values()) == {0}


def test_trap_trailing_newlines_are_not_the_last_line():
    assert grade("Final Answer: [a]\n\n", ["a"])["f1"] == 1


def test_trap_the_prefix_is_not_part_of_the_first_node():
    # the card strips brackets from the whole match, which leaves "Final Answer: [a" as a node
    assert grade("Final Answer: [a, b]", ["a", "b"])["precision"] == 1


def test_trap_a_draft_inside_thinking_is_not_an_answer():
    assert grade("<think>\nFinal Answer: [a]\n</think>\n\nNo idea.", ["a"])["flexible_f1"] == 0
    assert grade("draft [x]\n</think>\n\nFinal Answer: [a]", ["a"])["f1"] == 1


def test_trap_unclosed_thinking_is_not_an_answer():
    assert grade("<think>\nno\n</think>\nHm. <think>Final Answer: [a]", ["a"])["flexible_f1"] == 0
    assert grade("Let me see.\n<think>Final Answer: [a]", ["a"])["flexible_f1"] == 0
    assert grade("<think>\nso, Final Answer: [a]", ["a"])["flexible_f1"] == 0


def test_trap_only_the_flexible_score_ignores_quotes_around_nodes():
    scores = grade("Final Answer: ['a', \"b\"]", ["a", "b"])
    assert (scores["f1"], scores["flexible_f1"]) == (0, 1)


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("**Final Answer: [a, b]**", 1, 1),
        ("Final Answer: [a, b].", 1, 1),
        ("**Final Answer:** [a, b]", 0, 1),
        ("**Final Answer**: [`a`, `b`]", 0, 1),
        ("Final Answer: $\\boxed{[a, b]}$", 0, 1),
        ("$$\\text{Final Answer: } [\\text{a}, \\text{b}]$$", 0, 1),
        ("\\boxed{\\text{Final Answer: [a, b]}}", 1, 1),
        ("final answer: [a, b]", 0, 1),
        ("The final answer is [a, b].", 0, 1),
        ("Final Answer: [\na,\nb\n]", 0, 1),
        ("Final Answer:[a,b]", 1, 1),
        ("Final Answer:  [a, b]", 0, 1),  # the published rule allows one space
        ("Final Answer: a, b", 0, 0),
        ("Final Answer: [A, B]", 0, 0),  # node names are case-sensitive
        ("Final Answer: [a, b", 0, 0),
    ],
)
def test_trap_the_flexible_score_ignores_form_and_the_strict_one_follows_the_card(response, strict, flexible):
    scores = grade(f"Some words.\n{response}\n", ["a", "b"])
    assert (scores["f1"], scores["flexible_f1"]) == (strict, flexible)


def test_trap_brackets_inside_the_strict_answer_end_at_the_last_one():
    # `\[.*\]` is greedy: {a, "b] [c"} against {a}
    assert grade("Final Answer: [a, b] [c]", ["a"])["precision"] == 0.5


@pytest.mark.parametrize(
    "text", ["Final Answer: [", "] Final Answer: [", "final answer" + " " * 50, "*" * 60, "\n" * 60]
)
def test_trap_a_repetitive_text_is_graded_in_linear_time(text):
    with time_limit(60):  # with `\[.*\]` the first one needs several minutes
        assert grade(text * 60_000, ["a"])["flexible_f1"] == 0


def test_a_published_row_becomes_one_user_message():
    row = {"prompt": "p", "answer_nodes": ["a"], "problem_type": "bfs", "prompt_chars": 1, "date_added": "x"}
    asked = GraphWalks().published(row, "rows.jsonl:1", lambda text: 3000 * len(text))
    assert asked.messages == ({"role": "user", "content": "p"},)
    assert asked.groups == {"problem_type": "bfs", "wording": "original", "bin_tokens": "2048-4096"}
    assert asked.num_tokens == 3000
    assert asked.grade("Final Answer: [a]")["f1"] == 1


@pytest.mark.parametrize(
    "change", [{"answer_nodes": "a"}, {"prompt": 3}, {"problem_type": "dfs"}, {"answer_nodes": [1]}]
)
def test_a_row_of_another_shape_is_rejected_with_its_place(change):
    with pytest.raises(DataError, match=re.escape("rows.jsonl:7")):
        GraphWalks().published({"prompt": "p", "answer_nodes": [], "problem_type": "bfs"} | change, "rows.jsonl:7", len)


@pytest.mark.parametrize("wording", ["original", "corrected"])
def test_the_wording_of_a_row_is_recognised_from_its_prompt(wording):
    row = {"prompt": prompt(TOY, "bfs", "abcd", 1, wording), "answer_nodes": [], "problem_type": "bfs"}
    assert GraphWalks().published(row, "x", len).groups["wording"] == wording


def test_trap_an_older_answer_that_contains_the_node_itself_is_corrected():
    edges = [("a1", "a1"), ("b2", "a1"), ("a1", "b2")]

    def corrected(text: str, nodes: list[str], kind: str) -> tuple[bool, set[str]]:
        row = {"prompt": text, "answer_nodes": nodes, "problem_type": kind}
        asked = GraphWalks().published(row, "x", len)
        return asked.corrected, {node for node in ("a1", "b2") if asked.grade(f"Final Answer: [{node}]")["recall"]}

    parents = prompt(edges, "parents", "a1")
    assert corrected(parents, ["a1", "b2"], "parents") == (True, {"b2"})
    assert corrected(parents, ["b2"], "parents") == (False, {"b2"})
    assert corrected(prompt(edges, "bfs", "a1", 1), ["a1", "b2"], "bfs") == (False, {"a1", "b2"})


def test_metrics_are_the_keys_that_the_grader_returns():
    assert set(METRICS) == set(grade("", []))
