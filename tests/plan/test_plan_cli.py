"""`acc-megatron plan` as a user runs it: its JSON, its table, its errors, and its own memory."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, run_command
from support.in_process import acc_in_process
from support.run_processes import start

from acc_megatron.cli import main

RECIPE = str(ROOT / "tests" / "support" / "recipe_30b.toml")
TINY_RECIPE = str(ROOT / "examples" / "tiny_cpu.toml")
MEMORY = ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "total")


def plan_output(folder: Path, *arguments: str) -> str:
    """What `plan` prints, in a process of its own because it builds a model."""
    run = start(folder, ["plan", *arguments])
    assert run.wait() == [0], run.error_output()[-2000:]
    return run.output()


def test_a_plan_for_1024_gpus_has_every_key_and_needs_less_than_one_gibibyte(tmp_path: Path) -> None:
    starter = [sys.executable, "acc_megatron/bench/run_measured.py", str(tmp_path / "usage.json")]
    arguments = ["plan", RECIPE, "parallel.context=32", "parallel.pipeline=2", "--gpus", "1024", "--json"]
    out = tmp_path / "plan.json"
    code = f"import sys; sys.stdout = open({str(out)!r}, 'w'); sys.argv[0] = 'acc-megatron'; " \
           "from acc_megatron.cli import main; main()"  # fmt: skip
    done = run_command([*starter, sys.executable, "-c", code, *arguments])
    assert done.returncode == 0, done.stderr[-2000:]
    usage = json.loads((tmp_path / "usage.json").read_text())
    assert usage["exit_code"] == 0 and usage["peak_kib"] < 2**20, usage
    plan = json.loads(out.read_text())
    assert plan["world_size"] == 1024 and plan["layout"] == "TP2 CP32 PP2 EP8 DP8" and plan["fits"]
    assert plan["step_seconds"] > 0 and plan["tokens_per_second_per_gpu"] > 0 and len(plan["stages"]) == 2
    for stage in plan["stages"]:
        sizes = [stage["memory_bytes"][name] for name in MEMORY]
        assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=len(sizes))
    # the stages and expert ranks together have each of the 30.5 billion parameters once
    experts = sum(stage["expert_params"] for stage in plan["stages"]) * 8
    assert experts == 48 * 128 * 3 * 2048 * 768
    assert plan["parameters"] == 30_532_122_624
    assert plan["gpu_hours"] == pytest.approx(plan["days"] * 24 * 1024)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--gpus", "60"], "tp 2 x cp 8 x pp 1 = 16"),
        (["--gpus", "1024"], "train.global_batch_rows = 16"),
        (["parallel.tensor=8", "--gpus", "64"], "model.num_key_value_heads = 4"),
        (["--machine", "v100"], "unknown machine 'v100'; known: h100, h200, b200"),
    ],
)
def test_an_impossible_plan_is_refused_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["acc-megatron", "plan", RECIPE, *arguments])
    with pytest.raises(SystemExit) as exit_status:
        main()
    printed = capsys.readouterr()
    assert exit_status.value.code == 2 and message in printed.err
    assert len(printed.err.strip().splitlines()) == 1 and not printed.out


def test_the_table_fits_80_columns_and_lists_its_assumptions(tmp_path: Path) -> None:
    text = plan_output(
        tmp_path, RECIPE, "parallel.pipeline=4", "parallel.context=4", "moe.dispatcher=deepep",
        "memory.recompute=selective", "memory.recompute_modules=['layernorm','moe_act']", "--gpus", "64",
    )  # fmt: skip
    # a command stays on one line, so that it can be copied
    assert max(len(line) for line in text.splitlines() if not line.startswith("  acc-megatron plan ")) <= 80
    for line in (
        "The step is not confirmed on any GPU. It assumes:",
        "- attention forward 643.8 TFLOP/s",
        "assumed, because data/acc is not a dataset",
        "DOES NOT FIT: ",
    ):
        assert line in text


def test_search_prints_its_ranking_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", TINY_RECIPE, "data.path=nowhere", "--gpus", "4", "--search", "--json"]
    monkeypatch.setattr(sys, "argv", ["acc-megatron", *arguments])
    with pytest.raises(SystemExit) as exit_status:
        main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert exit_status.value.code == 0
    assert result["world_size"] == 4 and result["best"][0]["step_seconds"] <= result["best"][1]["step_seconds"]


def test_the_default_world_size_is_the_smallest_that_the_layout_allows(tmp_path: Path) -> None:
    assert json.loads(plan_output(tmp_path, RECIPE, "parallel.expert=32", "--json"))["world_size"] == 32


def test_the_page_of_a_plan_shows_the_numbers_of_its_json(tmp_path: Path) -> None:
    arguments = ("plan", ROOT / "examples" / "tiny_cpu.toml", "--gpus", 2, "--html", tmp_path / "plan.html", "--json")
    shown = json.loads(acc_in_process(*arguments).stdout)
    text = (tmp_path / "plan.html").read_text()
    (stage,) = shown["stages"]
    sizes = dict(re.findall(r"</i>(weights|gradients|optimizer|activations|loss|buffers): ([\d.]+) GB", text))
    assert {
        name: f"{size / 1e9:.2f}" for name, size in stage["memory_bytes"].items() if size and name != "total"
    } == sizes
    parts = dict(re.findall(r"</i>([a-z ]+): ([\d.e-]+) s<", text.split("Time of a step")[1]))
    seconds = {name.replace("_", " "): value for name, value in shown["step_seconds_by_part"].items() if value}
    assert {name: float(text) for name, text in parts.items()} == pytest.approx(seconds, rel=0.01)
    assert "The layout fits" in text and "<script" not in text
    refused = acc_in_process(*arguments[:-1], "--search")
    assert refused.returncode == 2 and "--html FILE draws the layout in CONFIG" in refused.stderr
