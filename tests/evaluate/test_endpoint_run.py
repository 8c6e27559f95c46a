"""`eval --endpoint`: a run without a file, the window from the server, and a benchmark that cannot be answered."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.eval_runs import EDGE, truthful
from support.in_process import acc_in_process
from support.teacher_server import Teacher, send

SMALL = ("--items", "2", "--length-tokens", "900", "--max-new-tokens", "8")


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_two_models_of_an_endpoint_are_compared_without_a_file_and_again_without_the_server(tmp_path: Path) -> None:
    with Teacher(truthful) as teacher:
        teacher.listed = [{"id": "a", "max_model_len": 5000}, {"id": "org/b", "meta": {"n_ctx_train": 6000}}]
        words = ("eval", "--endpoint", teacher.url, "--model", "a", "--model", "org/b", "--task", "graphwalks")
        arguments = (*words, *SMALL, "seed=3", "--out", tmp_path / "out")
        done = acc_in_process(*arguments)
        assert done.returncode == 0, done.stderr
        asked = sum(teacher.asked.values())
    first = results(tmp_path / "out")
    assert {name: model["window_tokens"] for name, model in first["settings"]["models"].items()} == {
        "a": 5000, "org/b": 6000
    }  # fmt: skip
    (difference,) = first["benchmarks"]["graphwalks"]["differences"]
    assert (difference["model"], difference["minus"], difference["num_items"]) == ("org/b", "a", 2)
    assert first["settings"]["seed"] == 3 and asked == 4
    again = acc_in_process(*arguments)
    assert again.returncode == 0, again.stderr
    assert results(tmp_path / "out")["items"] == first["items"]


@pytest.mark.parametrize(
    "listed", [None, [], [{"id": "other", "max_model_len": 9}], [{"id": "m", "max_model_len": "9"}]]
)
def test_a_server_that_does_not_state_the_window_is_refused_with_the_option(tmp_path: Path, listed: Any) -> None:
    with Teacher(truthful) as teacher:
        teacher.listed = listed
        done = acc_in_process("eval", "--endpoint", teacher.url, "--model", "m", *SMALL, "--out", tmp_path / "out")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"the server at {teacher.url}/models does not state the context size of model 'm'" in done.stderr
        assert "--window-tokens" in done.stderr and not teacher.asked


def test_a_benchmark_that_no_model_can_answer_does_not_end_the_others(tmp_path: Path) -> None:
    def only_graphs(handler: Any, body: dict[str, Any], times: int) -> None:
        if EDGE.search(body["messages"][0]["content"]):
            truthful(handler, body, times)
        else:
            send(handler, 400, b'{"error": {"message": "no needles today"}}')

    with Teacher(only_graphs) as teacher:
        words = ("eval", "--endpoint", teacher.url, "--model", "m", "--window-tokens", "4096", *SMALL)
        done = acc_in_process(*words, "--task", "mrcr,graphwalks", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "m answered no question of mrcr, so the results do not include it" in done.stderr
    assert "no needles today" in done.stderr and "mrcr         m: no answer" in done.stdout
    found = results(tmp_path / "out")
    assert list(found["benchmarks"]) == ["graphwalks"] and list(found["unanswered"]) == ["mrcr"]
    assert found["benchmarks"]["graphwalks"]["models"]["m"]["means"]["f1"] == 1
    assert "m answered no question of mrcr" in (tmp_path / "out" / "report.html").read_text()


def test_tasks_are_listed_and_unknown_ones_and_mixed_options_refused(tmp_path: Path) -> None:
    listed = acc_in_process("eval", "--list-tasks")
    assert listed.returncode == 0 and [line.split()[0] for line in listed.stdout.splitlines()] == [
        "graphwalks", "mrcr", "lm-eval"
    ]  # fmt: skip
    assert set(json.loads(acc_in_process("eval", "--list-tasks", "--json").stdout)) == {"graphwalks", "mrcr"}
    url = ("--endpoint", "http://127.0.0.1:9/v1")
    for arguments, message in (
        ((*url, "--out", tmp_path), "--endpoint needs --model NAME"),
        (("--out", tmp_path), "give a RUN (a TOML file or an HF_DIR), or --endpoint URL"),
        ((*url, "--model", "m"), "--out FOLDER is missing"),
        (("run.toml", "--task", "mrcr", "--out", tmp_path), "belong to --endpoint URL"),
    ):
        done = acc_in_process("eval", *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
