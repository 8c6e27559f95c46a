"""The routing page from results written by hand: every pair of tasks and every checkpoint is drawn."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from acc_megatron.analyze.routing_page import routing_body

# matplotlib draws text as paths and names it in a comment


def result(tasks: Sequence[str], *names: str) -> dict[str, Any]:
    _, *others = names
    change = {
        "by_layer": [0.25, 0.5],
        "most_changed_layers": [1],
        "most_changed_experts": {1: [{"expert": 3, "before": 0.75, "after": 0.25}]},
    }
    return {
        "tasks": {task: {} for task in tasks},
        "routing": {name: {task: [{"frequency": [0.25] * 4}] * 2 for task in tasks} for name in names},
        "changes": {other: dict.fromkeys(tasks, change) for other in others},
        "task_divergence_bits": {
            name: {f"{one} / {other}": [0.1, 0.2] for one, other in combinations(tasks, 2)} for name in names
        },
    }


def test_every_pair_of_five_tasks_is_drawn_for_every_checkpoint() -> None:
    body = routing_body(result("abcde", "before", "after", "control"))
    section = body.split("Tasks against each other")[1]
    assert [section.count(f"<!-- {one} / {other} -->") for one, other in combinations("abcde", 2)] == [1] * 10
    # a legend names the three once; markers of three lines of two layers in ten panels, and in the legend
    assert [section.count(f"<!-- {name} -->") for name in ("before", "after", "control")] == [1] * 3
    assert section.count("<use ") >= 10 * 3 * 2


def test_the_most_changed_experts_are_shown_with_the_control() -> None:
    body = routing_body(result("a", "before", "after", "control"))
    bars = body.split("</figure>")[1]
    assert all(f"<!-- {name} -->" in bars for name in ("before", "after", "control"))
    assert "<!-- layer 1 -->" in bars and "<!-- 3 -->" in bars


def test_one_checkpoint_alone_is_told_what_it_lacks() -> None:
    body = routing_body(result("a", "before"))
    assert "give --after" in body and "<svg" not in body


def test_a_tasks_name_is_drawn_as_it_is() -> None:
    body = routing_body(result(["$\\no$", "_b"], "before", "after"))  # no such command of TeX
    assert "<!-- $\\no$ / _b -->" in body
