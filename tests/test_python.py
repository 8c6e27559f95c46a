"""`import acc_megatron as acc`: every example of docs/python.md runs, each function does what its command does."""

import copy
import dataclasses
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import ROOT
from support.in_process import acc_in_process

import acc_megatron as acc
from acc_megatron.observe.metrics import MetricsLog

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)


def write_inputs(folder: Path) -> None:
    """The files that docs/python.md names."""
    page = [{"url": "u1", "title": "Rivers", "text": "The river Aare flows through Bern."}]
    steps = [
        {"tool": "search", "input": "river Bern", "output": json.dumps(page), "thought": "I look for the river."},
    ]
    runs = [
        {"question": f"Which river flows through Bern ({n})?", "steps": steps, "answer": "Aare", "ground_truth": "Aare"}
        for n in range(3)
    ]
    (folder / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    (folder / "recipe.toml").write_text((ROOT / "examples" / "tiny_cpu.toml").read_text())
    with MetricsLog(folder / "run", active=True) as log:
        for step in range(1, 5):
            log.step(step, loss=10.0 / step, grad_norm=1.0)
    item: dict[str, Any] = {
        "benchmark": "walks",
        "groups": {"bin_tokens": "0-1024"},
        "prompt_sha256": "",
        "answers": [{}],
    }
    items = [{**item, "model": "m", "id": f"walks/{n}", "num_tokens": 9, "scores": {"f1": n / 2}} for n in range(3)]
    results = {"format_version": 3, "benchmarks": {}, "items": items}
    (folder / "scores").mkdir()
    (folder / "scores" / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def names(here: Path) -> dict[str, Any]:
    """The names that the examples define, apart from those that need pandas."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for example in EXAMPLES[:-1]:
            run_example(example, found, here)
    return found


def run_example(text: str, names: dict[str, Any], folder: Path) -> None:
    """Run one example, with the names of those before it."""
    file = folder / "example.py"
    file.write_text(text)
    names |= runpy.run_path(str(file), init_globals=names)


def test_every_example_of_the_page_runs(names: dict[str, Any]) -> None:
    assert len(EXAMPLES) == 6 and "read_run" in EXAMPLES[-1]
    assert names["manifest"]["documents_out"] == len(names["dataset"]) == 3
    assert len(names["first_two"]) == 2 and len(names["search"]) == 3
    assert names["config"].train.epochs == 2 and names["config"].parallel.expert == 2
    assert names["plan"].layout.world == 2 and names["plan"].time.total > 0
    assert names["hidden"].grad is not None and names["count"] == 4


def test_the_functions_write_the_bytes_of_the_commands(
    names: dict[str, Any], here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)  # triples contain the path of their run
    options = ("--budget-tokens", 8192, "--seed", 0)
    assert acc_in_process("compile", "runs.jsonl", "--out", tmp_path / "triples", *options).returncode == 0
    assert (tmp_path / "triples" / "triples.jsonl").read_bytes() == (here / "triples" / "triples.jsonl").read_bytes()
    arguments = ("convert", tmp_path / "triples", "--out", tmp_path / "dataset", "--max-tokens", 8192)
    assert acc_in_process(*arguments).returncode == 0
    made = acc.open_dataset(tmp_path / "dataset")
    assert [one.ids.tolist() for one in made] == [one.ids.tolist() for one in names["dataset"]]
    assert made.manifest["files"] == names["dataset"].manifest["files"]


def test_a_dataset_is_a_sequence_and_survives_a_copy_to_another_process(names: dict[str, Any]) -> None:
    dataset = names["dataset"]
    assert [one.number for one in dataset] == [0, 1, 2] == [one.number for one in dataset[:]]
    assert dataset[-1].id == dataset[2].id != dataset[0].id
    with pytest.raises(IndexError):
        dataset[3]
    copied = copy.copy(dataset)
    assert np.array_equal(copied[1].ids, dataset[1].ids) and not dataset[1].ids.flags.writeable


def test_torch_labels_are_the_ids_of_the_targets_and_minus_100_elsewhere(names: dict[str, Any]) -> None:
    document, item = names["dataset"][1], names["dataset"].to_torch()[1]
    assert item["input_ids"].tolist() == document.ids.tolist()
    want = np.where(document.mask == 1, document.ids, -100)
    assert item["labels"].tolist() == want.tolist() and 0 < document.mask.sum() < len(document)


def test_a_plan_from_python_is_the_plan_of_the_command(
    names: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)  # the dataset's path is relative, and `make quickstart` makes that dataset in a checkout
    shown = json.loads(acc_in_process("plan", "recipe.toml", "--gpus", 2, "--json").stdout)
    assert shown["step_seconds"] == names["plan"].time.total and shown["layout"] == str(names["plan"].layout)
    config = dataclasses.replace(names["config"], name="loaded")
    with pytest.raises(acc.AccError, match="overrides need the path of a recipe"):
        acc.plan(config, ["train.epochs=1"])


def test_a_wrong_keyword_of_compile_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(acc.AccError, match="has no setting budget; did you mean budget_tokens"):
        acc.compile("runs.jsonl", tmp_path / "out", budget=5)
    with pytest.raises(AttributeError, match=r"has no attribute 'open'; it has .*open_dataset"):
        acc.open  # noqa: B018


@pytest.mark.parametrize("call", [lambda here: acc.read_run(here / "run"), lambda here: acc.read_scores(here)])
def test_without_pandas_a_data_frame_is_refused_in_one_line(
    call: Callable[[Path], Any], names: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for refused in (lambda: call(here), names["dataset"].to_pandas):
        with pytest.raises(acc.AccError, match=r"needs the package pandas, .*install pandas"):
            refused()


def test_runs_and_scores_are_data_frames(
    names: dict[str, Any], here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed (make test-extras installs it)")
    monkeypatch.chdir(here)
    run_example(EXAMPLES[-1], names, here)
    assert names["steps"].loss.tolist() == [10.0, 5.0, 10.0 / 3, 2.5] and names["steps"].index.tolist() == [1, 2, 3, 4]
    scores = names["scores"]
    assert scores.f1.tolist() == [0.0, 0.5, 1.0] and set(scores.bin_tokens) == {"0-1024"}
    assert names["samples"].tokens.tolist() == names["dataset"].lengths.tolist()
    with pytest.raises(acc.AccError, match=r"steps\.jsonl is missing"):
        acc.read_run(tmp_path)
