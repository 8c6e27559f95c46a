"""`plan` as a user runs it: its object, its table, its refusals, and what it costs itself."""

import json
import sys
from pathlib import Path

import pytest
from commands import ROOT, acc, good, run_command

RECIPE = "examples/qwen3_30b_a3b_128k_h100.toml"
MEMORY = ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "total")


def test_a_plan_for_1024_gpus_has_every_key_and_takes_less_than_a_gibibyte(tmp_path: Path) -> None:
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
    # both stages, both tensor ranks and all expert ranks hold the model once: 30.5 thousand million parameters
    experts = sum(stage["expert_params"] for stage in plan["stages"]) * 8
    assert experts == 48 * 128 * 3 * 2048 * 768
    assert plan["parameters"] == 30_532_122_624
    assert plan["gpu_hours"] == pytest.approx(plan["days"] * 24 * 1024)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--gpus", "60"], "tp 2 x cp 8 x pp 1 = 16 does not divide 60 ranks"),
        (["--gpus", "1024"], "train.global_batch_rows = 16 does not divide by data-parallel ranks = 64"),
        (["parallel.tensor=8", "--gpus", "64"], "model.num_key_value_heads = 4 does not divide by parallel.tensor = 8"),
        (["--machine", "v100"], "unknown machine 'v100'; known: h100, h200, b200"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    done = acc("plan", RECIPE, *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout


def test_the_table_is_readable_at_80_columns_and_says_what_no_gpu_has_confirmed() -> None:
    done = acc(
        "plan", RECIPE, "parallel.pipeline=4", "parallel.context=4", "moe.dispatcher=deepep",
        "memory.recompute=selective",
        "memory.recompute_modules=['layernorm','moe_act']", "--gpus", "64",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert max(map(len, done.stdout.splitlines())) <= 80
    for said in ("No GPU has confirmed", "assumed: data/acc is no dataset", "DOES NOT FIT: "):
        assert said in done.stdout


def test_search_prints_its_ranking_as_json_too() -> None:
    said = good(acc("plan", "examples/tiny_cpu.toml", "data.path=nowhere", "--gpus", "4", "--search", "--json"))
    assert said["world_size"] == 4 and said["best"][0]["step_seconds"] <= said["best"][1]["step_seconds"]


def test_the_default_world_is_the_smallest_that_the_layout_allows() -> None:
    assert (ROOT / RECIPE).is_file()
    said = good(acc("plan", RECIPE, "parallel.expert=32", "--json"))
    assert said["world_size"] == 32
