"""The routing page of results written by hand: every pair of tasks and every checkpoint is drawn."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from acc_megatron.analyze.routing_page import publish_routing

# matplotlib draws text as paths and writes it into a comment


def result(tasks: Sequence[str], *names: str) -> Any:
    _, *others = names
    change = {
        "by_layer": [0.25, 0.5],
        "most_changed_layers": [1],
        "most_changed_experts": {1: [{"expert": 3, "before": 0.75, "after": 0.25}]},
    }
    return {
        "checkpoints": {name: {"path": name, "trained_tokens": 1} for name in names},
        "tasks": {task: {"documents": [0], "num_documents": 1, "left_out_for_length": 0} for task in tasks},
        "routing": {name: {task: [{"frequency": [0.25] * 4}] * 2 for task in tasks} for name in names},
        "changes": {other: dict.fromkeys(tasks, change) for other in others},
        "task_divergence_bits": {
            name: {f"{one} / {other}": [0.1, 0.2] for one, other in combinations(tasks, 2)} for name in names
        },
    }


def page(out: Path, tasks: Sequence[str], *names: str) -> str:
    return publish_routing(out, result(tasks, *names)).read_text()


def test_every_pair_of_five_tasks_is_drawn_for_every_checkpoint(tmp_path: Path) -> None:
    body = page(tmp_path, "abcde", "before", "after", "control")
    section = body.split("Differences between tasks")[1]
    assert [section.count(f">{one} / {other}</text>") for one, other in combinations("abcde", 2)] == [1] * 10
    # one legend names the three checkpoints; three lines of two layers in ten panels have at least 60 markers
    assert [section.count(f">{name}</text>") for name in ("before", "after", "control")] == [1] * 3
    assert section.count("<use ") >= 10 * 3 * 2


def test_the_most_changed_experts_are_shown_with_the_control(tmp_path: Path) -> None:
    body = page(tmp_path, "a", "before", "after", "control")
    bars = body.split("</figure>")[1]
    assert all(f">{name}</text>" in bars for name in ("before", "after", "control"))
    assert ">layer 1</text>" in bars and ">3</text>" in bars


def test_a_single_checkpoint_gets_a_hint_to_give_another(tmp_path: Path) -> None:
    body = page(tmp_path, "a", "before")
    assert "give --after" in body and "<svg" not in body


def test_the_name_of_a_task_is_drawn_literally(tmp_path: Path) -> None:
    body = page(tmp_path, ["$\\no$", "_b"], "before", "after")  # not a TeX command
    assert ">$\\no$ / _b</text>" in body
