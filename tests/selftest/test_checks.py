"""The checks of the selftest pass on this machine, and fail when the thing that they check is broken."""

import json
import sys
from pathlib import Path

import pytest
from support.commands import free_port, run_command
from support.selftest_ranks import gather_keys_in_the_wrong_order, run_checks

from acc_megatron.errors import ConfigError
from acc_megatron.observe.metrics import LoggedStep
from acc_megatron.selftest.check import CheckFailed, Result
from acc_megatron.selftest.checks import resume
from acc_megatron.selftest.layouts import AXES, all_layouts, sizes_up_to
from acc_megatron.selftest.report import Finished

pytestmark = pytest.mark.distributed


@pytest.mark.slow
def test_kernels_attention_and_layouts_pass_on_two_processes(tmp_path: Path) -> None:
    names = ("ring", "kernels", "attention", "layouts")
    for name, outcomes in zip(names, run_checks(tmp_path, names), strict=True):
        assert [outcome["state"] for outcome in outcomes] == ["PASS", "PASS"], (name, outcomes)
        for outcome in outcomes:
            differences = {key: value for key, value in outcome["figures"].items() if "gradient" in key}
            assert all(0 < value < 1e-5 for value in differences.values()), (name, outcome)


def test_keys_in_the_wrong_order_fail_the_check_of_attention_with_the_size_and_the_numbers(tmp_path: Path) -> None:
    (outcomes,) = run_checks(tmp_path, ["attention"], before=gather_keys_in_the_wrong_order)
    assert outcomes[0]["state"] == outcomes[1]["state"] == "FAIL" and outcomes[1]["cause"] == "check"
    assert outcomes[1]["text"].startswith("context parallel 2, context rank 1: output differs by ")
    assert outcomes[1]["text"].endswith("the limit is 1e-05")


def _steps(*losses: float) -> list[LoggedStep]:
    return [{"step": number, "loss": loss} for number, loss in enumerate(losses, start=1)]


def test_a_resumed_run_that_lost_a_step_or_has_another_loss_fails(tmp_path: Path) -> None:
    truth = _steps(5.0, 4.0, 3.0, 2.0)
    figures: dict[str, float] = {}
    resume._compare(_steps(5.0, 4.0, 3.0, 2.0 * (1 + 9e-6)), truth, 3, "float32", figures)
    assert figures["loss after resume"] == 0 and 8e-6 < figures["loss after reshard"] < 1e-5
    with pytest.raises(CheckFailed, match=r"step 2: loss after resume differs by 1\.00e-07"):
        resume._compare(_steps(5.0, 4.0 * (1 + 1e-7), 3.0, 2.0), truth, 3, "float32", {})
    with pytest.raises(CheckFailed, match="the resumed run has steps"):
        resume._compare(truth[:3], truth, 3, "float32", {})
    with pytest.raises(CheckFailed, match="differs by nan"):
        resume._compare(_steps(5.0, float("nan"), 3.0, 2.0), truth, 3, "bfloat16", {})


@pytest.mark.parametrize("world", [1, 2, 3, 6, 8, 64])
def test_the_layouts_of_a_world_have_every_axis_and_divide_it(world: int) -> None:
    layouts = all_layouts(world)
    assert len({layout.name for layout in layouts}) == len(layouts)
    for axis in AXES:
        sizes = {getattr(layout.parallel, axis) for layout in layouts}
        assert all(world % size == 0 for size in sizes)
        assert not sizes_up_to(world) or {2, sizes_up_to(world)[-1]} <= sizes


def test_the_table_names_the_rank_the_numbers_and_the_next_command() -> None:
    results = [
        Result(name="ring", state="PASS", seconds=1.25, figures={"GB/s per link": 41.2}, text=""),
        Result(name="layouts", state="FAIL", seconds=2, figures={}, text="TP2: loss differs by 1.0e-01", rank=3,
               advice="train without TP"),
        Result(name="step", state="SKIP", seconds=0, figures={}, text="--quick leaves it out"),
    ]  # fmt: skip
    finished = Finished(results, ranks=8, gpu="H100", is_quick=True)
    lines = finished.table_lines()
    assert lines[0] == "PASS  ring        1.2 s  GB/s per link 41.20"
    assert lines[1].endswith("rank 3: TP2: loss differs by 1.0e-01") and lines[2].endswith("next: train without TP")
    assert lines[3].endswith("--quick leaves it out") and lines[4] == "1 PASS, 1 FAIL, 1 SKIP"
    found = finished.as_json()
    assert found["passed"] is False and found["ranks"] == 8 and "torch=" in found["versions"]


def test_an_unknown_check_is_refused_with_the_known_names(tmp_path: Path) -> None:
    from acc_megatron.selftest.run import run_selftest

    with pytest.raises(ConfigError, match="--only must be one of 'doctor', 'ring', 'kernels'"):
        run_selftest(tmp_path, is_quick=True, only=["speed"])


@pytest.mark.slow
def test_the_command_passes_on_two_processes_under_torchrun_and_without_it(tmp_path: Path) -> None:
    port = str(free_port())
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = ["-m", "acc_megatron", "selftest", "--out", str(tmp_path / "out")]
    done = run_command([sys.executable, *torchrun, *command, "--json"], timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert found["passed"] and found["ranks"] == 2 and set(states.values()) == {"PASS"}, done.stdout
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads((folder / "result.json").read_text()) == found
    assert {path.name for path in folder.iterdir()} == {"logs", "result.json"}, "datasets and checkpoints are removed"
    alone = [sys.executable, *command, "--quick", "--only", "kernels", "--only", "step", "--processes", "2"]
    done = run_command(alone, timeout=300)
    assert done.returncode == 0 and "1 PASS, 0 FAIL, 1 SKIP" in done.stdout, done.stdout + done.stderr[-2000:]
