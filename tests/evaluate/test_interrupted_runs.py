"""Runs that end early: killed in the middle, or out of time while a server does not answer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.commands import ROOT
from support.in_process import acc_in_process
from support.teacher_server import Teacher, completion, send_json

from acc_megatron.evaluate import results_format
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree

WALKS = {"kind": "graphwalks", "items": 4, "length_tokens": [900], "max_new_tokens": 8}


def test_a_kill_during_the_second_model_repeats_only_the_request_in_flight(tmp_path: Path) -> None:
    def slowly(handler: Any, _: dict[str, Any], __: int) -> None:
        time.sleep(0.1)
        send_json(handler, completion("Final Answer: []"))

    with Teacher(slowly) as teacher:
        models = "".join(
            f'[models.{name}]\nendpoint = "{teacher.url}"\nmodel = "{name}"\nwindow_tokens = 4096\n'
            "temperature = 0.6\nconcurrency = 1\n"
            for name in ("one", "two")
        )
        run = tmp_path / "run.toml"
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in WALKS.items())
        run.write_text(f'name = "x"\nrepeats = 3\nbootstrap_samples = 50\n{models}[benchmarks.walks]\n{settings}\n')
        command = ["eval", str(run), "--out", str(tmp_path / "out")]
        process = subprocess.Popen(
            [sys.executable, "-m", "acc_megatron", *command], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 120
        while len(teacher.answered) < 12 + 5 and time.monotonic() < end:  # in the second question of the second model
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        num_before = sum(teacher.asked.values())
        done = acc_in_process(*command)
        assert done.returncode == 0, done.stderr
        asked = {data: times for data, times in teacher.asked.items() if times > 1}
        assert len(teacher.asked) == 2 * 4 * 3 and len(asked) <= 1 and set(asked.values()) <= {2}
        num_kept = 24 - (sum(teacher.asked.values()) - num_before)
        assert num_kept >= 16
        assert (
            f"eval: {num_kept} answers were read from {tmp_path / 'out' / 'answers.sqlite'} and not asked for again"
            in done.stderr
        )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(item["answers"]) for item in results["items"]] == [3] * 8


def test_answers_longer_than_the_grader_matches_are_counted_and_results_have_the_stated_layout(tmp_path: Path) -> None:
    def long_for_two(handler: Any, body: dict[str, Any], _: int) -> None:
        last = body["messages"][-1]["content"]
        asked = last.partition(" about ")[0].rpartition("(1 indexed) ")[2] + " about " + last.partition(" about ")[2]
        same = [m for m in body["messages"] if m["content"] == f"write a {asked.partition('. Do not')[0]}"]
        rand = last.split()[1]
        send_json(handler, completion(rand + "word " * (9000 if len(same) == 2 else 10), reasoning="hm", finish="stop"))

    lines: list[str] = []
    rows = {"kind": "mrcr", "items": 4, "length_tokens": [1500], "max_new_tokens": 8}
    with Teacher(long_for_two) as teacher:
        model = {"endpoint": teacher.url, "model": "m", "window_tokens": 4096}
        run = run_from_tree({"name": "x", "models": {"m": model}, "benchmarks": {"rows": rows}}, "x")
        results = evaluate(run, tmp_path, show=lines.append)
    assert "eval m rows: 2 answers are longer than the grader matches; the rest of each counts as wrong" in lines
    assert results["benchmarks"]["rows"]["models"]["m"]["asked"]["num_longer_than_matched"] == 2
    written = json.loads((tmp_path / "results.json").read_text())
    result, item = written["benchmarks"]["rows"], written["items"][0]
    for value, layout in (
        (written, results_format.Results),
        (result, results_format.BenchmarkResult),
        (result["models"]["m"], results_format.ModelSummary),
        (result["models"]["m"]["asked"], results_format.Asked),
        (item, results_format.ModelItem),
        (item["answers"][0], results_format.GradedAnswer),
    ):
        assert layout.__required_keys__ <= set(value) <= set(layout.__annotations__)


def test_a_silent_server_does_not_keep_a_run_past_max_seconds(tmp_path: Path) -> None:
    def silent_for_bfs(handler: Any, body: dict[str, Any], _: int) -> None:
        if "Perform a BFS from node" in body["messages"][0]["content"].rpartition("Operation:")[2]:
            time.sleep(60)
        send_json(handler, completion("Final Answer: []"))

    with Teacher(silent_for_bfs) as teacher:
        model = {
            "endpoint": teacher.url,
            "model": "m",
            "window_tokens": 4096,
        }  # whose own time limit is five tries of an hour
        tree = {"name": "x", "models": {"m": model}, "benchmarks": {"walks": WALKS}, "max_seconds": 3.0}
        results = evaluate(run_from_tree(tree, "x"), tmp_path, show=print)
        assert len(teacher.answered) == 2  # the silent replies were not waited for
    summary = results["benchmarks"]["walks"]["models"]["m"]
    assert summary["num_items"] == 2 and summary["asked"]["without_answer"] == {"out_of_time": 2}
