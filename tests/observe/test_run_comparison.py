"""`report RUN1 RUN2`: its numbers are those of the runs, as a page, as text, and while a run trains."""

import json
import re
from pathlib import Path

import pytest
from support.in_process import acc_in_process

from acc_megatron.common.html_page import Table
from acc_megatron.common.text_table import sparkline, table_lines
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.observe.report import write_report
from acc_megatron.observe.watch import watch


def log_run(folder: Path, steps: range, *, loss: float, rate: float, learning_rate: float) -> Path:
    folder.mkdir(exist_ok=True)
    settings = {
        "name": "x",
        "optimizer": {"learning_rate": learning_rate},
        "train": {"run_dir": str(folder), "seed": 0},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    with MetricsLog(folder, active=True) as log:
        for step in steps:
            log.step(
                step, loss=loss - step / 100, grad_norm=1.0, tokens_per_second=rate, seconds=2.0, layout="TP1",
                learning_rate=learning_rate,
            )  # fmt: skip
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of 40 and 30 steps; only the learning rate differs."""
    first = log_run(tmp_path / "base", range(1, 41), loss=3.0, rate=100.0, learning_rate=1e-4)
    return first, log_run(tmp_path / "テスト", range(1, 31), loss=2.5, rate=150.0, learning_rate=3e-4)


def test_two_runs_are_compared_at_the_last_step_that_both_reached(runs: tuple[Path, Path]) -> None:
    done = acc_in_process("report", *runs)
    assert done.returncode == 0, done.stderr
    page = runs[0] / "comparison.html"
    assert done.stdout == f"{page}\n"
    text = page.read_text()
    # means of steps 11 to 30: 3 - 0.205 and 2.5 - 0.205
    sentence = (
        "At step 30, the last that both runs reached, the loss of テスト is 2.2950, 0.5000 lower than that of base "
        "(2.7950; means over the last 20 steps). テスト makes 1.50 times the tokens per second."
    )
    assert sentence in text and "<title>base and テスト</title>" in text
    assert re.findall(r"<tr><td>(optimizer\.\w+|train\.\w+)</td><td>([^<]+)</td><td>([^<]+)</td></tr>", text) == [
        ("optimizer.learning_rate", "0.0001", "0.0003")
    ]
    assert "<td class=number>40</td><td class=number>30</td>" in text and text.count("<svg") == 1


def test_the_text_of_a_comparison_and_of_a_run_has_the_same_numbers(runs: tuple[Path, Path]) -> None:
    lines = acc_in_process("report", *runs, "--text").stdout.splitlines()
    assert lines[0].startswith("At step 30, the last that both runs reached")
    assert any(line.split() == ["optimizer.learning_rate", "0.0001", "0.0003"] for line in lines)
    of_one = acc_in_process("report", runs[0], "--text").stdout
    assert "2.990 at step 1, 2.600 at step 40" in of_one and "█▇" in of_one
    assert not (runs[0] / "report.html").exists()


def test_a_watched_page_is_written_again_after_each_logged_step_and_reloads_itself(runs: tuple[Path, Path]) -> None:
    run, pages = runs[0], []

    def update() -> None:
        pages.append(write_report(run, refresh_seconds=10).read_text())

    def sleep(_: float) -> None:
        if len(pages) == 3:
            raise KeyboardInterrupt
        log_run(run, range(40 + len(pages), 41 + len(pages)), loss=3.0, rate=1.0, learning_rate=1e-4)

    watch([run / "steps.jsonl"], update, sleep=sleep)
    assert [re.findall(r"at step 1, [\d.]+ at step (\d+)", page) for page in pages] == [["40"], ["41"], ["42"]]
    assert all('<meta http-equiv="refresh" content="10">' in page for page in pages)
    assert "http-equiv" not in write_report(run).read_text()


def test_what_cannot_be_compared_or_watched_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ((runs[0], tmp_path), f"{tmp_path} is not a training run: it has no steps.jsonl"),
        ((runs[0], runs[0]), "the same run is given twice"),
        ((tmp_path, "--watch"), f"--watch follows a training run, but {tmp_path} has no steps.jsonl"),
        ((runs[0], "--text", "--json"), "--text prints the report: leave out --out and --json"),
    ):
        done = acc_in_process("report", *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_text_table_is_aligned_with_wide_characters() -> None:
    table = Table(("name", "count"), [("ab", 5), ("日本", 12)], {1})
    assert list(table_lines(table)) == ["name  count", "ab        5", "日本     12"]
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█" and len(sparkline(range(1000))) == 60
