"""report.html of results written by hand: the right numbers in the right cells and order, for any model name."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.evaluate.report.page import write_report
from acc_megatron.evaluate.results import summarise_items
from acc_megatron.evaluate.settings import run_from_tree

Scored = tuple[dict[str, str], dict[str, float]]  # groups and scores of one item


def run(name: str, kind: str, items: dict[str, list[Scored]], longer: int = 0, **part: Any) -> dict[str, Any]:
    """Results of one benchmark `b` as the runner writes them, from the scores of each model."""
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
        who: summarise_items(mine, asked | {"without_answer": {}}, samples=10, seed=0) for who, mine in made.items()
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
    """The cells of the table whose header contains a cell `header`."""
    (found,) = [part for part in re.findall(r"<table>(.*?)</table>", text, re.DOTALL) if f">{header}</th>" in part]
    lines = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line)] for line in lines]


def test_mmlu_pro_next_to_the_paper_includes_all_its_subjects(tmp_path: Path) -> None:
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
    assert "Comparison with the paper" not in page(tmp_path, alone)  # one subject is not the whole benchmark


def test_the_bins_of_two_runs_are_in_order_of_length(tmp_path: Path) -> None:
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
    # the axis has only lengths
    assert re.findall(r">(\d+-\d+|out of range)</text>", text) == ["4096-8192", "8192-16384", "16384-32768"]


def test_the_rows_are_described_for_each_run_if_they_differ(tmp_path: Path) -> None:
    scored = [({"n_needles": "2"}, {"score": 1.0})]
    made = run("made", "mrcr", {"a": scored}, generated=True)
    real = run("real", "mrcr", {"b": scored}, longer=4, left_out={"over_max_chars": 3}, corrected_truths=2)
    notes = re.findall(r"<p class=note>(.*?)</p>", page(tmp_path, made, real))
    assert any(note.startswith("a: mrcr, generated rows;") for note in notes)
    (of_b,) = [note for note in notes if note.startswith("b: mrcr, rows from files;")]
    assert [note for note in notes if "longer" in note] == [
        "b: 4 answers are longer than the grader matches; the rest of each counts as wrong."
    ]
    assert "left out: 3 over_max_chars" in of_b and "2 published answers corrected" in of_b


def test_benchmarks_of_one_name_and_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    bins = [({"bin_tokens": value}, {"score": 1.0}) for value in ("0-1024", "1024-2048")]
    choices = [({"bin_tokens": value}, {"accuracy": 0.0}) for value in ("0-1024", "1024-2048")]
    text = page(tmp_path, run("one", "mrcr", {"a": bins}), run("two", "multiple_choice", {"b": choices}))
    assert [line[0] for line in rows(text, "score by bin_tokens")[0:1]] == ["score by bin_tokens"]
    assert rows(text, "score by bin_tokens")[0][1:] == ["a"] and rows(text, "accuracy by bin_tokens")[0][1:] == ["b"]


@pytest.mark.parametrize("name", ["_base", r"a$\frac$", "<script>alert(1)</script>", "Qwen/Qwen3-30B-A3B"])
def test_a_model_with_any_name_is_in_the_legend_under_that_name(tmp_path: Path, name: str) -> None:
    bins = [({"bin_tokens": value}, {"score": 1.0}) for value in ("0-1024", "1024-2048")]
    text = page(tmp_path, run("r", "mrcr", {name: bins, "other": bins}))
    drawing = text[text.index("<svg") : text.index("</svg>")]
    assert html.escape(name) in drawing and "other" in drawing
    assert "<script" not in text


def test_a_comparison_opens_with_a_sentence_about_the_paired_difference_and_a_forest_plot(tmp_path: Path) -> None:
    kinds = [({"n_needles": "2"}, {"score": score}) for score in (0.2, 0.4, 0.3, 0.5)]
    better = [({"n_needles": "2"}, {"score": score + 0.3}) for _, part in kinds for score in part.values()]
    text = page(tmp_path, run("r", "mrcr", {"base": kinds, "tuned": better}))
    body = text[text.index("<h1>") :]
    first = re.search(r"<p class=lead>(.*?)</p>", body)
    assert first and first[1] == (
        "b: tuned is better than base by 30.0 points of score (95 % interval 30.0 to 30.0, 4 questions)."
    )
    assert body.index("class=range") < body.index("<table>")
    assert re.findall(r'class=range><u style="left: ([\d.]+)%', body) == ["50.00"]
    assert re.findall(r'<em style="left: ([\d.]+)%', body) == ["98.00"]
    same = page(tmp_path, run("r", "mrcr", {"base": kinds, "tuned": kinds[::-1]}))
    assert "b: no difference is shown between tuned and base (0.0 points of score" in same


def test_one_model_without_a_right_answer_gets_no_figures_of_zeros(tmp_path: Path) -> None:
    bins = [({"bin_tokens": value, "n_needles": "2"}, {"score": 0.0}) for value in ("0-1024", "1024-2048")]
    bins.append(({"bin_tokens": "0-1024", "n_needles": "4"}, {"score": 0.0}))
    text = page(tmp_path, run("r", "mrcr", {"m": bins}))
    assert "<svg" not in text and "class=lead" not in text.split("</style>")[1]
    shown, hidden = text.split("<details>")
    assert "score by bin_tokens" in shown and "score by n_needles" in hidden
