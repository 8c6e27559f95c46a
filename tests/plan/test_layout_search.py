"""The search over layouts: complete, legal, ranked, and able to say why."""

import itertools
from pathlib import Path

import pytest

from acc_megatron.compatibility import check_job
from acc_megatron.config import load_config
from acc_megatron.errors import ConfigError
from acc_megatron.machines import find_machine
from acc_megatron.plan.search import legal_layouts, search, search_as_json, why_behind
from acc_megatron.plan.table import render_search
from acc_megatron.plan.workload import read_workload

RECIPE = Path(__file__).parents[2] / "examples" / "qwen3_30b_a3b_128k_h100.toml"


def test_every_layout_that_training_accepts_is_found_once() -> None:
    config = load_config(RECIPE)
    layouts = legal_layouts(config, 16, find_machine("h100"))
    found = [(*str(layout).split(), layout.expert_tensor) for changed, layout in layouts
             if changed.parallel.virtual_pipeline == 1]  # fmt: skip
    expected = 0
    sizes = (1, 2, 4, 8, 16)
    for tensor, context, pipeline, expert, shards in itertools.product((1, 2, 4), sizes, sizes, sizes, (1, 2, 4)):
        data = 16 // (tensor * context * pipeline)
        whole = data * tensor * context * pipeline == 16 and 16 % (shards * expert * pipeline) == 0
        expected += whole and 16 % max(1, data) == 0 and shards <= tensor and 48 % pipeline == 0
    assert len(found) == len(set(found)) == expected


def test_layouts_that_fit_come_first_and_the_fastest_of_them_first_of_all() -> None:
    config = load_config(RECIPE)
    plans = search(config, 16, find_machine("h100"), read_workload(config))
    assert {plan.fits for plan in plans} == {True, False}
    for better, worse in itertools.pairwise(plans):
        assert better.fits or not worse.fits
        assert better.fits != worse.fits or better.time.total <= worse.time.total
    for plan in plans:
        check_job(plan.config, 16, has_gpu=True)
    # the recipe's own layout is among them
    assert any(str(plan.layout) == "TP2 CP8 PP1 EP8 DP1" and plan.config.memory.recompute == "full" for plan in plans)
    assert "GB" in why_behind(plans[0], plans[1])
    assert "does not fit" in why_behind(plans[0], plans[-1])
    said = search_as_json(plans)
    assert said["candidates"] == len(plans) and len(said["best"]) == 10
    assert said["best"][0]["behind_the_one_before"] is None and said["best"][1]["behind_the_one_before"]
    text = render_search(plans, 16)
    assert max(map(len, text.splitlines())) <= 80


def test_a_world_without_any_legal_layout_is_refused_with_its_numbers() -> None:
    config = load_config(RECIPE, ["train.global_batch_rows=1", "data.document_multiple_tokens=1"])
    with pytest.raises(ConfigError, match=r"no layout of 7 ranks is legal.*global_batch_rows = 1"):
        search(config, 7, find_machine("h100"), read_workload(config))
