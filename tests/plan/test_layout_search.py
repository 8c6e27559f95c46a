"""The search finds every legal layout, ranks the layouts, and explains the ranking."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import pytest
from support.commands import ROOT

from acc_megatron.cli import main
from acc_megatron.compatibility import check_job
from acc_megatron.config import load_config
from acc_megatron.errors import ConfigError
from acc_megatron.plan.plan_json import search_json
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.search import choose, compare_plans, faster_plan, legal_layouts, search
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.text_table import render_search
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"


@pytest.fixture(scope="module")
def plans_for_16() -> list[Plan]:
    config = load_config(RECIPE)
    return search(config, 16, find_speeds("h100"), read_workload(config))


def test_every_layout_that_training_accepts_is_found_once() -> None:
    config = load_config(RECIPE)
    layouts = legal_layouts(config, 16, find_speeds("h100"))
    found = [(*str(layout).split(), layout.expert_tensor) for changed, layout in layouts
             if changed.parallel.virtual_pipeline == 1]  # fmt: skip
    expected = 0
    sizes = (1, 2, 4, 8, 16)
    for tensor, context, pipeline, expert, expert_tensor in itertools.product(
        (1, 2, 4), sizes, sizes, sizes, (1, 2, 4)
    ):
        data = 16 // (tensor * context * pipeline)
        is_divided = data * tensor * context * pipeline == 16 and 16 % (expert_tensor * expert * pipeline) == 0
        expected += is_divided and 16 % max(1, data) == 0 and expert_tensor <= tensor and 48 % pipeline == 0
    assert len(found) == len(set(found)) == expected


def test_layouts_that_fit_come_first_sorted_by_time(plans_for_16: list[Plan]) -> None:
    plans = plans_for_16
    assert {plan.fits for plan in plans} == {True, False}
    for better, worse in itertools.pairwise(plans):
        assert better.fits or not worse.fits
        if better.fits == worse.fits:
            before, after = (each.time.total if each.fits else each.peak_bytes for each in (better, worse))
            assert before <= after
    for plan in plans:
        check_job(plan.config, 16, has_gpu=True)
    assert any(str(plan.layout) == "TP2 CP8 PP1 EP8 DP1" and plan.config.memory.recompute == "full" for plan in plans)
    assert "GB" in compare_plans(plans[0], plans[1])
    assert "does not fit" in compare_plans(plans[0], plans[-1])
    result = search_json(plans)
    assert result["candidates"] == len(plans) and len(result["best"]) == 10
    assert result["best"][0]["difference_to_previous"] is None and result["best"][1]["difference_to_previous"]
    text = render_search(plans, 16)
    assert max(map(len, text.splitlines())) <= 80


def test_a_world_size_without_a_legal_layout_is_refused() -> None:
    config = load_config(RECIPE, ["train.global_batch_rows=1", "data.document_multiple_tokens=1"])
    with pytest.raises(ConfigError, match=r"no layout of 7 ranks is legal.*global_batch_rows = 1"):
        search(config, 7, find_speeds("h100"), read_workload(config))


def test_the_faster_layout_of_a_recipe_is_the_best_of_its_search_and_none_for_the_best_itself(
    plans_for_16: list[Plan],
) -> None:
    config, speeds = load_config(RECIPE, ["parallel.expert=16"]), find_speeds("h100")
    workload = read_workload(config)
    best = choose(plan for plan in plans_for_16 if plan.fits)
    assert best is not None and best.has_room
    slow = make_plan(config, check_plan(config, 16, speeds), speeds, workload)
    faster = faster_plan(slow)
    assert faster is not None and faster == best and faster.time.total < slow.time.total
    assert faster_plan(best) is None


def test_the_recipe_that_a_search_writes_has_the_planned_step_of_its_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "second.toml"
    arguments = ["plan", str(RECIPE), "--gpus", "8", "--search", "--write", "2", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", ["acc-megatron", *arguments])
    with pytest.raises(SystemExit):
        main()
    second = json.loads(capsys.readouterr().out)["best"][1]
    config, speeds = load_config(out), find_speeds("h100")
    plan = make_plan(config, check_plan(config, 8, speeds), speeds, read_workload(config))
    assert plan.time.total == pytest.approx(second["step_seconds"]) and plan.fits
    assert dataclasses.asdict(config.parallel) == second["parallel"]
    monkeypatch.setattr(sys, "argv", ["acc-megatron", *arguments[:6], "9999", *arguments[7:]])
    with pytest.raises(SystemExit) as exit_status:
        main()
    assert exit_status.value.code == 2 and "layouts that fit, from rank 1" in capsys.readouterr().err
