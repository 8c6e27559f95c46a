"""A benchmark is one object: registering a new kind is enough to run `eval` with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from support.teacher_server import Teacher, completion, send_json

from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.benchmarks.benchmark import BenchmarkSettings
from acc_megatron.evaluate.benchmarks.paper import PAPER_MODELS, PaperColumn
from acc_megatron.evaluate.benchmarks.question import CountTokens, Question
from acc_megatron.evaluate.benchmarks.question_benchmark import QuestionBenchmark, RowSettings
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.report.text_table import result_lines
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree


@dataclass(frozen=True, kw_only=True)
class SumsSettings(RowSettings):
    """Rows of the toy benchmark; `word` joins the numbers."""

    word: str = "plus"


class Sums(QuestionBenchmark[SumsSettings]):
    """Sums of two numbers, grouped by parity."""

    kind = "sums"
    settings = SumsSettings
    metrics = ("exact", "close")
    columns = ("a", "b")
    text_column = "a"
    length_note = ", of numbers"
    paper_columns = (PaperColumn("Sums <b>", (12.5, 99.0), ("exact",), note="Sums are exact."),)

    def published(self, row: Mapping[str, Any], where: str, count_tokens: CountTokens) -> Question:
        total = row["a"] + row["b"]

        def grade(response: str) -> dict[str, float]:
            return {"exact": float(int(response) == total), "close": float(abs(int(response) - total) < 2)}

        text = f"{row['a']} plus {row['b']}"
        return Question(
            id=where,
            groups={"parity": "even" if total % 2 == 0 else "odd"},
            messages=({"role": "user", "content": text},),
            grade=grade,
            num_tokens=count_tokens(text),
        )


@pytest.fixture
def sums_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The settings of a run of the toy benchmark, which is registered during the test."""
    monkeypatch.setitem(BENCHMARKS, "sums", Sums())
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"a": a, "b": 3}) + "\n" for a in range(4)))
    return {"name": "toy", "bootstrap_samples": 20, "benchmarks": {"adding": {"kind": "sums", "rows": [str(rows)]}}}


def test_a_registered_toy_benchmark_is_asked_graded_and_reported(tmp_path: Path, sums_run: dict[str, Any]) -> None:
    def right_for_odd_sums(handler: Any, body: dict[str, Any], _: int) -> None:
        a, b = map(int, body["messages"][0]["content"].split(" plus "))
        send_json(handler, completion(str(a + b if (a + b) % 2 else a + b + 1)))

    with Teacher(right_for_odd_sums) as teacher:
        sums_run["models"] = {"m": {"endpoint": teacher.url, "model": "m", "window_tokens": 100_000}}
        results = evaluate(run_from_tree(sums_run, "run.toml"), tmp_path / "out", show=print)
    result = results["benchmarks"]["adding"]
    assert (result["kind"], result["generated"], result["models"]["m"]["num_items"]) == ("sums", False, 4)
    assert result["models"]["m"]["means"] == {"exact": 0.5, "close": 1.0}
    assert result["models"]["m"]["groups"]["parity"]["odd"]["means"]["exact"] == 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (
        "exact by parity",
        "sums, rows from files",
        "of numbers",
        "Sums &lt;b&gt;",
        ">12.50<",
        "Sums are exact.",
    ):
        assert text in page
    (line,) = result_lines(results)
    assert line.startswith("adding") and line.index("exact 50.0") < line.index("close 100.0")


def test_the_settings_of_a_registered_benchmark_are_checked(sums_run: dict[str, Any]) -> None:
    sums_run["models"] = {"m": {"endpoint": "http://x", "model": "m", "window_tokens": 10}}
    adding = sums_run["benchmarks"]["adding"]
    adding["word"] = "and"
    assert run_from_tree(sums_run, "run.toml").benchmarks["adding"].word == "and"
    adding["wrod"] = "and"
    with pytest.raises(
        ConfigError, match=r"unknown key benchmarks\.adding\.wrod; did you mean benchmarks\.adding\.word"
    ):
        run_from_tree(sums_run, "run.toml")
    del adding["wrod"], adding["rows"]
    with pytest.raises(ConfigError, match=r"benchmarks\.adding\.rows is missing: sums has no generator"):
        run_from_tree(sums_run, "run.toml")


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_every_registered_benchmark_states_its_settings_headline_and_paper_figures(kind: str) -> None:
    benchmark = BENCHMARKS[kind]
    assert benchmark.kind == kind
    assert issubclass(benchmark.settings, BenchmarkSettings)
    assert {"kind", "max_new_tokens"} <= {field.name for field in fields(benchmark.settings)}
    assert benchmark.headline is None or isinstance(benchmark.headline, str)
    assert all(2 <= len(column.figures) <= len(PAPER_MODELS) for column in benchmark.paper_columns)
