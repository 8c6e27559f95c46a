"""The recipes of examples/ for each size: they fit with memory to spare, and no other layout is much faster."""

from dataclasses import dataclass

import pytest
from support.commands import ROOT

from acc_megatron.config import load_config
from acc_megatron.plan.assumed_efficiency import RECIPE_SHARE
from acc_megatron.plan.planner import check_plan, make_plan
from acc_megatron.plan.search import search
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.workload import read_workload


@dataclass(frozen=True)
class Example:
    """A recipe and the GPUs that it is for."""

    file: str
    num_gpus: int
    machine: str


NODE = Example("qwen3_30b_a3b_128k_h100_8_gpus.toml", 8, "h100")
SMALL = Example("qwen3_0_6b_32k_h100.toml", 1, "h100")
LARGE = [
    Example("qwen3_30b_a3b_128k_h100_16_gpus.toml", 16, "h100"),
    Example("qwen3_30b_a3b_128k_h100.toml", 64, "h100"),
    Example("qwen3_4b_32k_h200.toml", 1, "h200"),
    Example("qwen3_32b_128k_h200.toml", 8, "h200"),
    Example("qwen3_30b_a3b_128k_h200.toml", 8, "h200"),
    Example("qwen3_235b_a22b_128k_h100.toml", 256, "h100"),
]


@pytest.mark.parametrize(
    "example", [SMALL, NODE, *(pytest.param(each, marks=pytest.mark.slow) for each in LARGE)], ids=str
)
def test_a_recipe_leaves_memory_free_and_is_within_two_percent_of_the_fastest_that_does(example: Example) -> None:
    config, speeds = load_config(ROOT / "examples" / example.file), find_speeds(example.machine)
    workload = read_workload(config)
    plan = make_plan(config, check_plan(config, example.num_gpus, speeds), speeds, workload)
    limit = RECIPE_SHARE * speeds.machine.memory_bytes
    assert plan.peak_bytes <= limit and plan.has_room
    found = search(config, example.num_gpus, speeds, workload)
    fastest = min(other.time.total for other in found if other.has_room)
    assert plan.time.total <= 1.02 * fastest
