"""`acc-megatron calibrate` in two real processes, and the speeds that made-up seconds give."""

import json
from pathlib import Path

import pytest
from support.memory_cases import RECIPE
from support.run_processes import start

from acc_megatron.mesh.process_groups import process_groups  # first: it makes megatron run without CUDA

# isort: split
from acc_megatron.calibrate.attention import Attention
from acc_megatron.calibrate.collectives import Collectives
from acc_megatron.calibrate.gemm import Gemm
from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.memory import Memory
from acc_megatron.calibrate.permutation import Permutation
from acc_megatron.calibrate.rounds import run_rounds
from acc_megatron.calibrate.shapes import shapes_of
from acc_megatron.config import ParallelConfig, load_config
from acc_megatron.plan.machine_file import MeasuredSpeeds, read_machine

TINY = ("model.hidden_size=64", "data.seq_length_tokens=256", "model.moe_intermediate_size=32")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.slow
@pytest.mark.distributed
def test_a_calibration_of_two_processes_gives_a_plan_without_assumed_speeds(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "machine.toml"
    arguments = ["calibrate", str(recipe), *TINY, "--out", str(out), "--seconds", "0"]
    run = start(tmp_path / "calibrate", arguments, world=2)
    assert run.wait() == [0, 0], run.error_output()[-3000:]
    speeds = read_machine(str(out))
    assert not speeds.on_gpu and speeds.gemm.sizes == (16, 64, 256) and speeds.expert_gemm.sizes == (4, 16, 64)
    assert {(link.kind, link.num_ranks, link.num_nodes) for link in speeds.links} == {
        ("ring", 2, 1), ("neighbour", 2, 1), ("all_to_all", 2, 1)
    }  # fmt: skip
    arguments = ["plan", str(recipe), *TINY, "parallel.expert=2", "--gpus", "2", "--machine", str(out), "--json"]
    run = start(tmp_path / "plan", arguments)
    assert run.wait() == [0], run.error_output()[-3000:]
    plan = json.loads(run.output())
    assert plan["step_seconds"] > 0 and {item["source"] for item in plan["speeds"]} == {speeds.source}
    # the file has no group of four ranks, and a CPU has no data sheet
    run = start(tmp_path / "four", ["plan", str(recipe), *TINY, "parallel.expert=4", "--machine", str(out)])
    assert run.wait() == [2]
    assert "no all_to_all collective of 4 ranks on 1 nodes" in run.error_output()


def test_speeds_are_the_work_by_hand_over_the_seconds(recipe: Path) -> None:
    shapes, found = shapes_of(load_config(recipe, TINY)), MeasuredSpeeds()
    seconds = {f"gemm {tokens}": 2.0 for tokens in shapes.tokens}
    seconds |= {f"attention {tokens}": 2.0 for tokens in shapes.tokens}
    seconds |= {f"attention with backward {tokens}": 7.0 for tokens in shapes.tokens}
    seconds |= {"memory": 2.0, "permutation": 4.0}
    for kind in (Gemm(), Attention(), Memory(), Permutation()):
        kind.speeds(shapes, seconds, found)
    # hidden 64, 8 heads and 2 x 2 key and value heads of 32; three products of 2 FLOPs
    assert found.gemm is not None and found.gemm.at(256) == 3 * 2 * 256 * 64 * (12 * 32) / 2.0
    assert found.attention_forward is not None and found.attention_backward is not None
    # two products of 2 FLOPs over half of the square, with 8 heads of 32; backward has five products
    square = 256 * 256 / 2 * 8 * 32
    assert found.attention_forward.at(256) == 2 * 2 * square / 2.0
    assert found.attention_backward.at(256) == 5 * 2 * square / 5.0
    assert found.memory_bytes_per_second == 3 * 256 * 64 * 4 / 2.0
    # two experts for each token
    assert found.permutation_bytes_per_second == 5 * 2 * 256 * 64 * 4 / 4.0


def test_links_have_the_latency_and_the_rate_that_two_sizes_give(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, found = shapes_of(load_config(recipe, TINY)), MeasuredSpeeds()
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    seconds = {}
    for size, stride in ((2, 1), (4, 1)):
        for kind in ("ring", "neighbour", "all_to_all"):
            for elements in (16 * 64, 256 * 64):
                calls = 2 if kind == "ring" else 1
                sent = 4 * elements * (1 - 1 / size if kind == "ring" else 1)
                seconds[f"{kind} {size} {stride} {elements}"] = calls * (3e-3 + sent / 5e6)
    Collectives().speeds(shapes, seconds, found)
    assert len(found.links) == 6
    for link in found.links:
        assert link.latency_seconds == pytest.approx(3e-3) and link.bytes_per_second == pytest.approx(5e6)


def test_samples_take_turns_in_every_round() -> None:
    calls: list[str] = []
    samples = [Sample(name, lambda name=name: calls.append(name)) for name in "abc"]
    with process_groups(ParallelConfig()):
        seconds = run_rounds(samples, budget_seconds=0, say=lambda line: None)
    # the first calls only warm up
    assert calls == list("abc") * 4 and set(seconds) == set("abc")
