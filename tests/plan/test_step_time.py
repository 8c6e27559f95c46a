"""The time model's inputs against counts by hand, and its figures against published ones."""

from pathlib import Path

import pytest
from published_speeds import PUBLISHED, predict

from acc_megatron.config import load_config
from acc_megatron.layout import build_layout
from acc_megatron.machines import MACHINES, find_machine
from acc_megatron.plan.communication import Group, collectives
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.planner import check_plan, make_plan
from acc_megatron.plan.shapes import rank_shapes
from acc_megatron.plan.workload import read_workload

RECIPE = Path(__file__).parents[2] / "examples" / "qwen3_30b_a3b_128k_h100.toml"


def test_published_speeds_with_known_settings_are_met_within_a_fifth() -> None:
    # the first three rows name hardware, precision, layout and dispatcher; of the others something is a guess
    for row in PUBLISHED[:3]:
        assert predict(row).flops_per_second_per_gpu / 1e12 == pytest.approx(row.tflops_per_gpu, rel=0.2), row.setup


def test_bytes_of_each_collective_are_those_counted_by_hand() -> None:
    config = load_config(RECIPE)
    layout = build_layout(config.parallel, 64)
    shapes = rank_shapes(config, layout, on_gpu=True)
    found = {
        item.name.rpartition("(")[2].rstrip(")") + item.name[0]: item
        for item in collectives(config, layout, shapes, Parameters(1000, 2000, 1), MACHINES["h100"])
    }
    # 131,072 / CP8 = 16,384 tokens, half of them outside attention; bfloat16; 48 layers, 4 microbatches
    tp, cp, ep = found["TPs"], found["CPk"], found["EPt"]
    assert tp.call_bytes == 16_384 * 2048 * 2 / 2 and tp.calls == 48 * 4 * (2 + 2 + 3)
    assert cp.call_bytes == 7 * 16_384 * 2 * 256 * 2 and cp.calls == 48 * 4 * (1 + 1 + 2)
    assert ep.call_bytes == 8_192 * 8 * 2048 * 2 * 7 / 8 and ep.calls == 48 * 4 * 2 * 3
    # float32 gradients scattered and bfloat16 weights gathered, once a step
    assert found["DPd"].step_bytes == 1000 * 6 * 31 / 32 and found["DPe"].step_bytes == 2000 * 6 * 7 / 8
    assert (tp.nodes, cp.nodes, ep.nodes, found["DPd"].nodes, found["DPe"].nodes) == (1, 2, 1, 8, 8)


def test_a_group_knows_when_it_leaves_its_node() -> None:
    assert (Group(8, 1).nodes, Group(16, 1).nodes, Group(8, 2).nodes, Group(4, 8).nodes) == (1, 2, 2, 4)
    machine = MACHINES["h100"]
    inside, outside = Group(8, 1), Group(16, 1)
    assert outside.all_to_all_seconds(1e9, machine) > 3 * inside.all_to_all_seconds(1e9, machine)


def test_more_of_the_same_work_takes_longer_and_a_faster_machine_less() -> None:
    config = load_config(RECIPE)
    layout, workload = check_plan(config, 64, find_machine("h100")), read_workload(config)
    plans = {name: make_plan(config, layout, find_machine(name), workload) for name in MACHINES}
    assert plans["b200"].time.total < plans["h200"].time.total < plans["h100"].time.total
    kept = load_config(RECIPE, ["memory.recompute=none"])
    without = make_plan(kept, layout, find_machine("h100"), workload)
    assert without.time.total < plans["h100"].time.total and without.peak_bytes > plans["h100"].peak_bytes
    # a fifth of the way from one to the next is not lost: recompute is one more forward pass of everything
    again = plans["h100"].time.recompute
    assert again == pytest.approx((plans["h100"].time.arithmetic + plans["h100"].time.memory_traffic) / 3 +
                                  plans["h100"].time.attention / 4, rel=0.02)  # fmt: skip


def test_model_flops_of_a_step_are_those_of_its_documents_and_not_of_its_rows() -> None:
    config = load_config(RECIPE)
    layout, workload = check_plan(config, 64, find_machine("h100")), read_workload(config)
    plan = make_plan(config, layout, find_machine("h100"), workload)
    full_rows = 16 * 3 * 48 * 2 * 4096 * 131_072.0**2
    attention = 16 * 3 * 48 * 2 * 4096 * workload.squared_tokens
    assert attention < plan.flops_per_step < full_rows
    per_token = plan.flops_per_step / (16 * 131_072)
    # 519 million tokens of such lengths take 5.6e19 FLOPs, by an independent count
    assert per_token * 519e6 == pytest.approx(5.6e19, rel=0.05)
