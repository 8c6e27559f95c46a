"""report.html of hand-made results: whose numbers stand where, in which order, and any name as it is."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.evaluate.report import write_report
from acc_megatron.evaluate.results import summarise_items
from acc_megatron.evaluate.settings import run_from_tree

Scored = tuple[dict[str, str], dict[str, float]]  # groups and scores of one item


def run(name: str, kind: str, items: dict[str, list[Scored]], longer: int = 0, **part: Any) -> dict[str, Any]:
    """Results of one benchmark `b` as the runner writes them, from what each model scored."""
    model = {"endpoint": "http://x", "model": "m", "window_tokens": 10}
    needed = {"lm_eval": {"tasks": ["t"]}, "multiple_choice": {"rows": ["x"]}}.get(kind, {})
    tree = {"name": name, "models": dict.fromkeys(items, model), "benchmarks": {"b": {"kind": kind, **needed}}}
    asked = {"num_answers": 1, "num_cut_at_max_new_tokens": 0, "prompt_tokens": 1, "new_tokens": 1, "cost": 0.0}
    asked |= {"num_longer_than_matched": longer}
    made = {
        who: [
            {"id": str(k), "benchmark": "b", "model": who, "prompt_sha256": str(k), "groups": groups, "scores": scores}
            for k, (groups, scores) in enumerate(scored)
        ]
        for who, scored in items.items()
    }
    summaries = {
        who: summarise_items(mine, samples=10, seed=0) | {"asked": asked | {"without_answer": {}}}
        for who, mine in made.items()
    }
    benchmark = {"kind": kind, "generated": False, "left_out": {}, "corrected_truths": 0, "models": summaries}
    return {
        "name": name,
        "settings": run_from_tree(tree, "x").as_dict(),
        "tokenizer": {"name": "qwen3"},
        "models": {who: {"endpoint": "http://x"} for who in items},
        "benchmarks": {"b": benchmark | part},
        "items": [item for mine in made.values() for item in mine],
    }


def page(tmp_path: Path, *runs: dict[str, Any]) -> str:
    write_report(runs, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header holds a cell `header`."""
    (found,) = [part for part in re.findall(r"<table>(.*?)</table>", text, re.DOTALL) if f">{header}</th>" in part]
    lines = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line)] for line in lines]


def test_mmlu_pro_beside_the_paper_is_all_its_subjects_and_not_the_first(tmp_path: Path) -> None:
    metric = "exact_match,custom-extract"
    scores = {"biology": [1.0], "law": [0.0, 0.0], "math": [1.0]}
    items = [
        ({"task": f"mmlu_pro_{subject}", "task_group": "mmlu_pro"}, {metric: score})
        for subject, values in scores.items()
        for score in values
    ]
    items = [({"task": "mmlu_prox_de_law", "task_group": "mmlu_prox_de"}, {metric: 1.0}), *items]
    items += [({"task": "aime24"}, {"exact_match": 1.0})]
    header, *lines = rows(page(tmp_path, run("r", "lm_eval", {"m": items})), "MMLU-Pro")
    assert header == ["", "MMLU-Pro", "AIME24"]
    ours = dict(zip(header, lines[-1], strict=True))
    assert ours[""] == "m" and ours["MMLU-Pro"].startswith("50.0 [") and ours["AIME24"] == "100.0"
    alone = run("r", "lm_eval", {"m": [({"task": "mmlu_pro_law"}, {metric: 1.0})]})
    assert "Beside the paper" not in page(tmp_path, alone)  # one subject is not the benchmark


def test_the_bins_of_two_runs_stand_in_the_order_of_their_lengths(tmp_path: Path) -> None:
    def one(name: str, *bins: str) -> dict[str, Any]:
        return run(
            name, "mrcr", {"m": [({"bin_tokens": value}, {"score": 1.0, "flexible_score": 1.0}) for value in bins]}
        )

    text = page(
        tmp_path,
        one("long", "out of range", "16384-32768"),
        one("short", "4096-8192", "8192-16384"),
        one("far", "out of range"),
    )
    for metric in ("score", "flexible_score"):
        found = [line[0] for line in rows(text, f"{metric} by bin_tokens")[1:]]
        assert found == ["4096-8192", "8192-16384", "16384-32768", "out of range"]
    # matplotlib leaves each text of the drawing as a comment: the axis holds lengths alone
    assert re.findall(r"<!-- (\d+-\d+|out of range) -->", text) == ["4096-8192", "8192-16384", "16384-32768"]


def test_what_the_rows_are_is_said_of_each_run_where_they_differ(tmp_path: Path) -> None:
    scored = [({"n_needles": "2"}, {"score": 1.0})]
    made = run("made", "mrcr", {"a": scored}, generated=True)
    real = run("real", "mrcr", {"b": scored}, longer=4, left_out={"over_max_chars": 3}, corrected_truths=2)
    notes = re.findall(r"<p class=note>(.*?)</p>", page(tmp_path, made, real))
    assert any(note.startswith("a: mrcr, generated rows;") for note in notes)
    (of_b,) = [note for note in notes if note.startswith("b: mrcr, rows of files;")]
    assert [note for note in notes if "longer" in note] == [
        "b: 4 answers are longer than is matched; their rest counts as wrong."
    ]
    assert "left out: 3 over_max_chars" in of_b and "2 truths without" in of_b


def test_benchmarks_of_one_name_and_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    bins = [({"bin_tokens": value}, {"score": 1.0}) for value in ("0-1024", "1024-2048")]
    choices = [({"bin_tokens": value}, {"accuracy": 0.0}) for value in ("0-1024", "1024-2048")]
    text = page(tmp_path, run("one", "mrcr", {"a": bins}), run("two", "multiple_choice", {"b": choices}))
    assert [line[0] for line in rows(text, "score by bin_tokens")[0:1]] == ["score by bin_tokens"]
    assert rows(text, "score by bin_tokens")[0][1:] == ["a"] and rows(text, "accuracy by bin_tokens")[0][1:] == ["b"]


@pytest.mark.parametrize("name", ["_base", r"a$\frac$", "<script>alert(1)</script>", "Qwen/Qwen3-30B-A3B"])
def test_a_model_of_any_name_is_in_the_legend_under_it(tmp_path: Path, name: str) -> None:
    bins = [({"bin_tokens": value}, {"score": 1.0}) for value in ("0-1024", "1024-2048")]
    text = page(tmp_path, run("r", "mrcr", {name: bins, "other": bins}))
    drawing = text[text.index("<svg") : text.index("</svg>")]
    assert html.escape(name) in drawing and "other" in drawing
    assert "<script" not in text
