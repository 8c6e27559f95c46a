"""GraphWalks: the published text, truths against all-pairs distances, and every trap of the grader by name."""

import hashlib
import json
import re
import time
from pathlib import Path

import pytest

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate import graphwalks
from acc_megatron.evaluate.graphwalks import (
    from_row,
    grade,
    make_item,
    make_items,
    prompt,
    question,
    solve,
    without_own_node,
)

REAL_ROW = Path(__file__).parents[3] / "shared" / "data" / "bench" / "graphwalks_one_real_row.json"
EDGE = re.compile(r"^(\w{10}) -> (\w{10})$", re.MULTILINE)
TOY = [("uvwx", "alke"), ("abcd", "uvwx"), ("abcd", "efgh"), ("efgh", "uvwx")]


def reference(edges: list[tuple[str, str]], operation: str, node: str, depth: int | None) -> set[str]:
    """Parents by definition; BFS by Floyd and Warshall's all-pairs distances, which shares nothing with a BFS."""
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
    item = make_item(11, 4, "parents", seed=5)
    assert [source for source, _ in EDGE.findall(item.prompt)] == published


def test_the_toy_graph_has_the_answers_that_its_prompt_prints():
    assert set(solve(TOY, "bfs", "abcd", 1)) == {"uvwx", "efgh"}
    assert solve(TOY, "bfs", "alke", 1) == []
    assert set(solve(TOY, "parents", "uvwx")) == {"abcd", "efgh"}
    assert solve(TOY, "parents", "abcd") == []


@pytest.mark.parametrize("operation, depth", [("parents", None), ("bfs", 1), ("bfs", 2), ("bfs", 3)])
def test_truth_equals_the_brute_force_on_random_graphs(operation, depth):
    sizes = set()
    for seed in range(25):
        item = make_item(14, 2, operation, seed, depth)
        truth = reference(EDGE.findall(item.prompt), operation, item.settings["node"], depth)
        assert len(item.answer_nodes) == len(set(item.answer_nodes))
        assert set(item.answer_nodes) == truth
        sizes.add(len(truth))
    assert len(sizes) > 1  # the comparison saw more than one kind of truth


def test_trap_self_loop_is_not_its_own_parent():
    assert solve([("a", "a"), ("b", "a")], "parents", "a") == ["b"]


def test_trap_bfs_start_reached_again_is_left_out():
    assert solve([("a", "b"), ("b", "a"), ("b", "c")], "bfs", "a", 2) == ["c"]


def test_trap_bfs_depth_is_the_shortest_distance_not_any_walk():
    # c is two steps away by a -> b -> c, yet also one step away: only depth 1 may name it
    assert solve([("a", "b"), ("b", "c"), ("a", "c")], "bfs", "a", 2) == []


def test_nodes_are_md5_prefixes_and_every_source_has_the_same_degree():
    item = make_item(40, 5, "bfs", seed=1, depth=2)
    sources = [source for source, _ in EDGE.findall(item.prompt)]
    names = [hashlib.md5(str(i).encode()).hexdigest()[:10] for i in range(40)]
    assert names[0] == "cfcd208495"
    assert sources == [name for name in names for _ in range(5)]


def test_duplicate_edges_and_self_loops_occur():
    edges = [edge for seed in range(20) for edge in [EDGE.findall(make_item(11, 4, "parents", seed).prompt)]]
    assert any(len(set(graph)) < len(graph) for graph in edges)
    assert any(a == b for graph in edges for a, b in graph)


def test_corrected_wording_changes_the_bfs_rule_and_the_bfs_task_alone():
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


def test_items_depend_on_their_seed_alone():
    first = make_items(4, length_chars=5000, seed=3)
    assert first == make_items(4, length_chars=5000, seed=3)
    assert first[:2] == make_items(2, length_chars=5000, seed=3)
    neighbour = make_items(4, length_chars=5000, seed=4)
    assert len({item.settings["seed"] for item in first + neighbour}) == 8
    assert [item.problem_type for item in first] == ["parents", "bfs", "parents", "bfs"]


def test_length_in_characters_is_filled_to_the_last_node():
    for length in (3000, 20_011, 300_000):
        for item in make_items(2, length_chars=length, seed=0, out_degree=4):
            assert length - 4 * 25 < len(item.prompt) <= length  # an edge line has 10 + 4 + 10 + 1 characters


def test_length_in_tokens_is_filled_by_the_callers_count():
    def count(text: str) -> int:  # uneven on purpose: digits cost 2, everything else 1 in three characters
        return 2 * sum(map(str.isdigit, text)) + len(text) // 3

    for item in make_items(4, length_tokens=20_000, count_tokens=count, seed=0):
        assert 19_700 < count(item.prompt) <= 20_000


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_items(1, seed=0), "exactly one"),
        (lambda: make_items(1, seed=0, length_tokens=9, length_chars=9, count_tokens=len), "exactly one"),
        (lambda: make_items(1, seed=0, length_tokens=9), "count_tokens"),
        (lambda: make_items(1, seed=0, length_chars=900), "over the limit of 900"),
        (lambda: make_item(5, 4, "bfs", 0), "depth"),
        (lambda: make_item(5, 4, "bfs", 0, depth=0), "at least 1"),
        (lambda: make_item(0, 4, "parents", 0), "num_nodes"),
        (lambda: make_item(5, 4, "dfs", 0), "'parents', 'bfs'"),
        (lambda: prompt(TOY, "parents", "abcd", None, "newest"), "'original', 'corrected'"),
    ],
)
def test_a_wrong_setting_is_named(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        call()


# The grader. Expected values are worked by hand from P = overlap / found, R = overlap / truth, F1 = 2PR / (P + R).


def test_grade_is_set_f1_precision_and_recall():
    scores = grade("Final Answer: [a, b, b, x]", ["a", "b", "c", "d"])  # found {a, b, x}: P = 2/3, R = 2/4
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(1 / 2)
    assert scores["f1"] == pytest.approx(4 / 7)
    assert scores["flexible_f1"] == pytest.approx(4 / 7)


def test_trap_both_empty_scores_one():
    assert grade("Final Answer: []", [])["f1"] == 1
    assert grade("Final Answer: [ ]", [])["flexible_f1"] == 1


def test_trap_disjoint_scores_zero():
    assert set(grade("Final Answer: [a]", ["b"]).values()) == {0}


def test_trap_one_side_empty_scores_zero():
    assert set(grade("Final Answer: []", ["b"]).values()) == {0}
    assert set(grade("Final Answer: [b]", []).values()) == {0}


def test_trap_answer_not_on_the_last_line_is_strict_zero_but_flexible():
    scores = grade("Final Answer: [a, b]\nI hope this helps.", ["a", "b"])
    assert (scores["f1"], scores["precision"], scores["recall"]) == (0, 0, 0)
    assert (scores["flexible_f1"], scores["flexible_precision"], scores["flexible_recall"]) == (1, 1, 1)


def test_trap_flexible_takes_the_last_line_that_answers():
    assert grade("Final Answer: [a]\nFinal Answer: [b]\nbye", ["b"])["flexible_f1"] == 1


def test_trap_no_answer_at_all_scores_zero_also_where_the_truth_is_empty():
    assert set(grade("There are none.", []).values()) == {0}
    assert set(grade("", []).values()) == {0}


def test_trap_newline_after_the_answer_is_not_the_last_line():
    assert grade("Final Answer: [a]\n\n", ["a"])["f1"] == 1


def test_trap_the_prefix_never_becomes_part_of_the_first_node():
    # the card strips brackets from the whole match, which leaves "Final Answer: [a" as a node
    assert grade("Final Answer: [a, b]", ["a", "b"])["precision"] == 1


def test_trap_a_draft_inside_thinking_is_no_answer():
    assert grade("<think>\nFinal Answer: [a]\n</think>\n\nNo idea.", ["a"])["flexible_f1"] == 0
    assert grade("draft [x]\n</think>\n\nFinal Answer: [a]", ["a"])["f1"] == 1


def test_trap_thinking_that_never_ends_is_no_answer():
    assert grade("<think>\nno\n</think>\nHm. <think>Final Answer: [a]", ["a"])["flexible_f1"] == 0
    assert grade("Let me see.\n<think>Final Answer: [a]", ["a"])["flexible_f1"] == 0
    assert grade("<think>\nso, Final Answer: [a]", ["a"])["flexible_f1"] == 0


def test_trap_quotes_around_nodes_are_forgiven_by_the_flexible_score_alone():
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
        ("Final Answer: [A, B]", 0, 0),  # the names of nodes are read as they are
        ("Final Answer: [a, b", 0, 0),
    ],
)
def test_trap_the_flexible_score_forgives_form_and_the_strict_one_follows_the_card(response, strict, flexible):
    scores = grade(f"Some words.\n{response}\n", ["a", "b"])
    assert (scores["f1"], scores["flexible_f1"]) == (strict, flexible)


def test_trap_brackets_inside_the_strict_answer_end_at_the_last_one():
    # `\[.*\]` is greedy: {a, "b] [c"} against {a}
    assert grade("Final Answer: [a, b] [c]", ["a"])["precision"] == 0.5


@pytest.mark.parametrize(
    "text", ["Final Answer: [", "] Final Answer: [", "final answer" + " " * 50, "*" * 60, "\n" * 60]
)
def test_trap_a_text_that_repeats_itself_is_graded_in_linear_time(text):
    started = time.monotonic()
    assert grade(text * 20_000, ["a"])["flexible_f1"] == 0  # with `\[.*\]` the first takes over half a minute
    assert time.monotonic() - started < 5


def test_a_published_row_is_read_and_asked_as_one_user_message():
    row = {"prompt": "p", "answer_nodes": ["a"], "problem_type": "bfs", "prompt_chars": 1, "date_added": "x"}
    asked = question(from_row(row, "rows.jsonl:1"), lambda text: 3000 * len(text))
    assert asked.messages == ({"role": "user", "content": "p"},)
    assert asked.groups == {"problem_type": "bfs", "wording": "original", "bin_tokens": "2048-4096"}
    assert asked.num_tokens == 3000
    assert asked.grade("Final Answer: [a]")["f1"] == 1


@pytest.mark.parametrize(
    "change", [{"answer_nodes": "a"}, {"prompt": 3}, {"problem_type": "dfs"}, {"answer_nodes": [1]}]
)
def test_a_row_of_another_shape_is_refused_by_place(change):
    with pytest.raises(DataError, match=re.escape("rows.jsonl:7")):
        from_row({"prompt": "p", "answer_nodes": [], "problem_type": "bfs"} | change, "rows.jsonl:7")


@pytest.mark.parametrize("wording", ["original", "corrected"])
def test_the_wording_of_a_row_is_read_off_its_prompt(wording):
    item = from_row({"prompt": prompt(TOY, "bfs", "abcd", 1, wording), "answer_nodes": [], "problem_type": "bfs"}, "x")
    assert question(item, len).groups["wording"] == wording


def test_trap_an_older_truth_that_holds_the_node_itself_is_corrected():
    edges = [("a1", "a1"), ("b2", "a1"), ("a1", "b2")]
    old = {"prompt": prompt(edges, "parents", "a1"), "answer_nodes": ["a1", "b2"], "problem_type": "parents"}
    assert without_own_node(from_row(old, "x")).answer_nodes == ("b2",)
    right = from_row(old | {"answer_nodes": ["b2"]}, "x")
    assert without_own_node(right) == right
    bfs = from_row({"prompt": prompt(edges, "bfs", "a1", 1), "answer_nodes": ["b2"], "problem_type": "bfs"}, "x")
    assert without_own_node(bfs) == bfs


def test_metrics_are_what_the_grader_returns():
    assert set(graphwalks.METRICS) == set(grade("", []))
