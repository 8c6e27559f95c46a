"""The planned cost of a save. `tests/checkpoint/test_own_shards.py` compares it with real files."""

import pytest
from support.commands import ROOT

from acc_megatron.config import load_config
from acc_megatron.mesh.layout import build_layout
from acc_megatron.plan.planner import Plan, make_plan
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"
PARAMETERS = 30_532_122_624
EMBEDDING = 151_936 * 2048


def plan(num_gpus: int, *overrides: str) -> Plan:
    config = load_config(RECIPE, ["data.path=nowhere", *overrides])
    return make_plan(config, build_layout(config.parallel, num_gpus), find_speeds("h100"), read_workload(config))


@pytest.mark.parametrize("num_gpus", [16, 64])
def test_the_ranks_write_about_equal_parts_which_are_a_checkpoint_together(num_gpus: int) -> None:
    planned = plan(num_gpus)
    assert planned.checkpoint_bytes == (2 + 4 + 8) * PARAMETERS
    share = planned.checkpoint_bytes / num_gpus
    # one rank writes half of the embedding, which is not divided further, instead of its share of the dense weights
    assert share <= planned.saved_bytes_per_gpu <= share + 2 * EMBEDDING / 2


def test_a_background_save_needs_host_memory_for_the_own_part_and_a_waited_save_for_one_tensor() -> None:
    background, waited = plan(64, "train.async_save=true"), plan(64, "train.async_save=false")
    assert background.saving_host_bytes_per_node == 8 * background.saved_bytes_per_gpu
    assert waited.saving_host_bytes_per_node == 8 * 4 * EMBEDDING / 2
    assert waited.peak_bytes == background.peak_bytes, "no device memory"
