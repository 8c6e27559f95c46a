"""Inputs of the time model against counts by hand, and predicted speeds against published ones."""

import pytest
from support.commands import ROOT
from support.published_speeds import PUBLISHED, predict

from acc_megatron.config import load_config
from acc_megatron.mesh.gpu_specs import MACHINES
from acc_megatron.mesh.layout import build_layout
from acc_megatron.plan.communication import Group, collectives
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.planner import check_plan, make_plan
from acc_megatron.plan.rank_sizes import rank_sizes
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.step_time import exposed_messages
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"


def test_published_speeds_with_known_settings_are_predicted_within_twenty_percent() -> None:
    # these name hardware, precision, layout, recompute and dispatcher; of the others a setting is guessed
    named = [row for row in PUBLISHED if row.names_settings]
    assert len(named) == 4
    for row in named:
        assert predict(row).flops_per_second_per_gpu / 1e12 == pytest.approx(row.tflops_per_gpu, rel=0.2), row.setup


def test_bytes_of_each_collective_match_a_count_by_hand() -> None:
    config = load_config(RECIPE)
    layout = build_layout(config.parallel, 64)
    sizes = rank_sizes(config, layout, on_gpu=True)
    found = {
        item.axis + item.name[0]: item
        for item in collectives(config, layout, sizes, Parameters(1000, 2000, 1), find_speeds("h100"))
    }
    # 131,072 / CP8 = 16,384 tokens, half of them outside attention; bfloat16; 48 layers, 4 microbatches
    tp, cp, ep = found["TPs"], found["CPk"], found["EPt"]
    assert tp.call_bytes == 16_384 * 2048 * 2 / 2 and tp.calls == 48 * 4 * (2 + 2 + 3)
    assert cp.call_bytes == 7 * 16_384 * 2 * 256 * 2 and cp.calls == 48 * 4 * (1 + 1 + 2)
    assert ep.call_bytes == 8_192 * 8 * 2048 * 2 * 7 / 8 and ep.calls == 48 * 4 * 2 * 3
    # float32 gradients are scattered and bfloat16 weights gathered once per step
    assert found["DPd"].step_bytes == 1000 * 6 * 31 / 32 and found["DPe"].step_bytes == 2000 * 6 * 7 / 8
    assert tuple(item.num_nodes for item in (tp, cp, ep, found["DPd"], found["DPe"])) == (1, 2, 1, 8, 8)


def test_a_group_spans_the_nodes_of_its_ranks() -> None:
    assert [group.num_nodes for group in (Group(8, 1), Group(16, 1), Group(8, 2), Group(4, 8))] == [1, 2, 2, 4]
    machine = find_speeds("h100")
    inside, outside = Group(8, 1), Group(16, 1)
    assert outside.all_to_all_seconds(1e9, machine) > 3 * inside.all_to_all_seconds(1e9, machine)


def test_recompute_takes_longer_and_a_faster_machine_takes_less() -> None:
    config = load_config(RECIPE)
    layout, workload = check_plan(config, 64, find_speeds("h100")), read_workload(config)
    plans = {name: make_plan(config, layout, find_speeds(name), workload) for name in MACHINES}
    assert plans["b200"].time.total < plans["h200"].time.total < plans["h100"].time.total
    kept = load_config(RECIPE, ["memory.recompute=none"])
    without = make_plan(kept, layout, find_speeds("h100"), workload)
    assert without.time.total < plans["h100"].time.total and without.peak_bytes > plans["h100"].peak_bytes
    # full recompute is one more forward pass of every layer
    again = plans["h100"].time.recompute
    assert again == pytest.approx((plans["h100"].time.arithmetic + plans["h100"].time.memory_traffic) / 3 +
                                  plans["h100"].time.attention / 4, rel=0.02)  # fmt: skip


def test_model_flops_of_a_step_count_documents_and_not_rows() -> None:
    config = load_config(RECIPE)
    layout, workload = check_plan(config, 64, find_speeds("h100")), read_workload(config)
    plan = make_plan(config, layout, find_speeds("h100"), workload)
    full_rows = 16 * 3 * 48 * 2 * 4096 * 131_072.0**2
    attention = 16 * 3 * 48 * 2 * 4096 * workload.squared_tokens
    assert attention < plan.flops_per_step < full_rows
    per_token = plan.flops_per_step / (16 * 131_072)
    # 519 million tokens of such lengths take 5.6e19 FLOPs, by an independent count
    assert per_token * 519e6 == pytest.approx(5.6e19, rel=0.05)


@pytest.mark.parametrize("stages, chunks, microbatches", [(2, 4, 16), (4, 2, 8), (2, 2, 2)])
def test_messages_between_chunks_are_hidden_except_while_the_pipeline_fills_and_drains(
    stages: int, chunks: int, microbatches: int
) -> None:
    sizes = ("parallel.tensor=1", "parallel.context=1", "parallel.expert=1", f"parallel.pipeline={stages}")
    config = load_config(
        RECIPE, [*sizes, f"parallel.virtual_pipeline={chunks}", f"train.global_batch_rows={microbatches}"]
    )
    layout = build_layout(config.parallel, stages)
    # Megatron's last stage starts after stages - 1 messages, and has a warm-up of (chunks - 1) x stages chunk passes
    # before it sends and receives next to computation; the flush is the same in reverse
    messages = ["fill"] * (stages - 1) + ["warm-up"] * min((chunks - 1) * stages, microbatches * chunks)
    expected = min(1, len(messages) / (microbatches * chunks))
    on_gpu = rank_sizes(config, layout, on_gpu=True)
    assert exposed_messages(config, layout, on_gpu) == pytest.approx(expected)
    single = load_config(RECIPE, [*sizes, "parallel.virtual_pipeline=1"])
    assert exposed_messages(single, layout, on_gpu) == 1
    assert exposed_messages(config, layout, rank_sizes(config, layout, on_gpu=False)) == 1
