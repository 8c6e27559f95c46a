"""`--json`: every verb has it, and prints one JSON document on stdout and nothing else there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import ROOT, acc
from support.in_process import acc_in_process
from support.make_inputs import QWEN_VOCAB_SIZE, TINY_MODEL, make_hf_folder, write_recipe, write_triples

from acc_megatron.cli.app import app

TINY = str(ROOT / "examples" / "tiny_cpu.toml")
ONE = ["parallel.context=1", "parallel.expert=1"]  # a layout of one process
RUN = {
    "question": "When?", "answer": "1903",
    "steps": [{"thought": "The page says it.", "tool": "visit", "input": {"url": "a.org"}, "output": "Born in 1903."}],
}  # fmt: skip

# the words after each verb, where {} is a folder with runs.jsonl, triples.jsonl and recipe.toml; a line may use what a
# line above it made
FAST: list[tuple[str, list[str]]] = [
    ("compile", ["{}/runs.jsonl", "-o", "{}/compiled"]),
    ("compile", ["{}/runs.jsonl", "-o", "{}/parts", "--shard", "0/1"]),
    ("merge", ["{}/parts"]),
    ("convert", ["{}/triples.jsonl", "-o", "{}/dataset"]),
    ("convert", ["{}/triples.jsonl", "-o", "{}/dataset_parts", "--shard", "0/1"]),
    ("merge", ["{}/dataset_parts"]),
    ("inspect", ["{}/dataset"]),
    ("inspect", ["{}/dataset", "--html", "{}/document.html"]),
    ("stats", ["{}/compiled"]),
    ("stats", ["{}/dataset"]),
    ("verify", ["{}/dataset"]),
    ("report", ["{}/dataset"]),
    ("config", ["lr"]),
    ("plan", [TINY]),
    ("plan", [TINY, "--html", "{}/plan.html", "--trace", "{}/trace.json"]),
    ("eval", ["--list-tasks"]),
    ("bench kernels", ["--list"]),
    ("bench kernels", ["--costs"]),
    ("bench step", [TINY, "--balance"]),
]
SLOW: list[tuple[str, list[str]]] = [
    ("doctor", []),
    ("plan", [TINY, "--search"]),
    ("analyze overlap", ["--training", "{}/triples.jsonl", "--benchmark", "own={}/triples.jsonl", "-o", "{}/overlap"]),
    ("convert", ["{}/triples.jsonl", "-o", "{}/dataset"]),
    ("import", ["{}/hf", "-o", "{}/checkpoint"]),
    ("recipe", ["{}/hf", "--gpus", "8", "--seq-length", "1024"]),
    ("train", ["{}/recipe.toml", "train.run_dir={}/run", "train.max_steps=1"]),
    ("export", ["{}/run", "-o", "{}/export"]),
    ("eval", ["{}/export", "-o", "{}/scores", "--items", "1", "--length-tokens", "512", "--max-new-tokens", "2"]),
    ("analyze routing", ["--before", "{}/run", "--task", "a={}/dataset", "--documents", "1", "-o", "{}/routing"]),
    ("analyze attention", ["--before", "{}/run", "--task", "a={}/dataset", "--documents", "1", "-o", "{}/attention"]),
    ("calibrate", ["{}/recipe.toml", "--out", "{}/machine.toml", "--seconds", "0"]),
    ("bench kernels", ["--tokens", "64", "--vocab", "128", "--hidden", "16", "--repeats", "1", "--only", "plain"]),
    ("bench kernels", ["--tokens", "64", "--vocab", "128", "--hidden", "16", "--repeats", "1", "--parts"]),
    ("selftest", ["--out", "{}/selftest", "--quick", "--only", "kernels", "--processes", "1"]),
]
# these take minutes, or need a server, a cluster or an extra: tests of their own read their --json
ELSEWHERE = {
    "launch local": "tests/launch/targets/test_nemo.py",
    "launch slurm": "tests/launch/targets/test_slurm.py",
    "launch kubernetes": "tests/launch/targets/test_kubernetes.py",
    "launch status": "tests/launch/test_experiment.py",
    "launch cancel": "tests/launch/test_experiment.py",
    "bench data": "tests/bench/test_bench_data.py",
    "bench step": "tests/bench/test_bench_step.py",
    "bench plan": "tests/bench/test_bench_plan.py",
    "reason": "tests/data_tools/reason/test_reason.py",
    "quickstart": "tests/test_readme.py",
}


def verbs(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb below a command, by its words."""
    parts = getattr(command, "commands", None)
    if parts is None:
        yield name, command
        return
    for word, part in parts.items():
        yield from verbs(part, f"{name} {word}".strip())


def make_folder(folder: Path) -> Path:
    """The inputs of the lists above."""
    (folder / "runs.jsonl").write_text(json.dumps(RUN) + "\n")
    write_triples(folder / "triples.jsonl", [20, 30])
    (folder / "experiment.toml").write_text('name = "one"\nout = "launched"\n[compile]\ninputs = ["runs.jsonl"]\n')
    return folder


def document(done: Any) -> Any:
    """The one JSON document that a successful verb printed."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout)


def test_every_verb_has_json_and_is_tested_with_it() -> None:
    flags = {
        name: [option for option in command.params if "--json" in option.opts]
        for name, command in verbs(typer.main.get_command(app))
    }
    assert [name for name, found in flags.items() if not found] == []
    assert all(option.is_flag for found in flags.values() for option in found)
    assert set(flags) == {name for name, _ in FAST + SLOW} | set(ELSEWHERE) | {"launch logs"}
    assert [name for name, file in ELSEWHERE.items() if not (ROOT / file).is_file()] == []


@pytest.mark.slow
def test_every_verb_about_files_prints_one_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder(tmp_path))
    for verb, words in FAST:
        document(acc_in_process(*verb.split(), *(word.replace("{}", str(tmp_path)) for word in words), "--json"))


def test_the_log_of_a_job_is_one_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder(tmp_path))
    monkeypatch.setattr("acc_megatron.launch.launcher.log_text", lambda loaded, job, rank: f"log of {job}\n")
    words = ["launch", "logs", "experiment.toml", "compile"]
    assert document(acc_in_process(*words, "--json")) == {"job": "compile", "rank": None, "log": "log of compile\n"}
    assert acc_in_process(*words).stdout == "log of compile\n"


@pytest.mark.slow
@pytest.mark.distributed
def test_every_verb_that_computes_prints_one_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hf_folder(make_folder(tmp_path) / "hf", vocab_size=QWEN_VOCAB_SIZE)
    write_recipe(
        tmp_path / "recipe.toml",
        model=TINY_MODEL | {"vocab_size": QWEN_VOCAB_SIZE},
        dataset=tmp_path / "dataset",
        checkpoint=tmp_path / "checkpoint",
        batch_rows=1,
        epochs=1,
    )
    for verb, words in SLOW:
        document(acc(*verb.split(), *(word.replace("{}", str(tmp_path)) for word in words), "--json"))
