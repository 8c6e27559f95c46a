"""Settings that save memory: what each stores, what a search does with them, and what a plan that does not fit says."""

import dataclasses
import itertools

import pytest
from support.commands import ROOT

from acc_megatron.config import load_config
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.search import choose, search
from acc_megatron.plan.shortage import remedies
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.switches import describe_switches
from acc_megatron.plan.text_table import render_search, render_shortage
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"
PARAMETERS = 4_401_006_592  # of a rank of TP2 EP8
NARROW = ("optimizer.moments=bfloat16", "optimizer.gradients=bfloat16", "optimizer.master_weights=remainders")


def plan(*overrides: str, num_gpus: int = 16) -> Plan:
    config, speeds = load_config(RECIPE, overrides), find_speeds("h100")
    return make_plan(config, check_plan(config, num_gpus, speeds), speeds, read_workload(config))


@pytest.mark.parametrize(
    ("overrides", "gradients", "state"),
    [
        ((), 4, 12),
        (("optimizer.master_weights=remainders",), 4, 10),
        (("optimizer.moments=bfloat16",), 4, 8),
        (NARROW, 2, 6),
        (("optimizer.moments=fp8", "optimizer.master_weights=float16"), 4, 5),
        (("optimizer.offload_fraction=0.75",), 4, 3),
        (("optimizer.offload_fraction=0.75", "optimizer.gradients=bfloat16"), 2, 4),
        (("train.precision=fp8_current", "optimizer.moments=bfloat16"), 4, 8),
    ],
    ids=str,
)
def test_every_storage_has_its_bytes_of_a_parameter(overrides: tuple[str, ...], gradients: int, state: float) -> None:
    (stage,) = plan(*overrides).stages
    owned = stage.parameters.dense / 8 + stage.parameters.experts / 2  # TP2 x CP8 and EP8 on 16
    assert stage.memory.gradients == gradients * stage.parameters.total
    assert stage.memory.optimizer == pytest.approx(state * owned)
    assert stage.memory.host == pytest.approx(12 * owned if "offload_fraction" in str(overrides) else 0)


def test_offloaded_modules_leave_the_device_and_cost_the_copies_that_no_computation_hides() -> None:
    none, some = plan("memory.recompute=none"), plan("memory.recompute=none", "memory.offload_modules=['moe_act']")
    freed = none.peak_bytes - some.peak_bytes
    # 46 of 48 layers: one leaves while one comes back
    assert freed == pytest.approx(some.host_bytes * 46 / 48, rel=1e-6) and freed > 10e9
    seconds = {}
    for rate in (4e9, 8e9, 1e15):
        machine = dataclasses.replace(some.speeds.machine, host_link_bytes_per_second=rate)
        speeds = dataclasses.replace(some.speeds, machine=machine)
        seconds[rate] = make_plan(some.config, some.layout, speeds, some.workload).time.offload
        assert seconds[rate] < 2 * 16 * some.host_bytes / (0.75 * rate)
    assert seconds[4e9] > seconds[8e9] > seconds[1e15] == none.time.offload == 0
    # a link of half the speed takes longer by all of the copies: 16 rows, there and back
    added = 2 * 16 * some.host_bytes / 0.75 * (1 / 4e9 - 1 / 8e9)
    assert seconds[4e9] - seconds[8e9] == pytest.approx(added, rel=1e-6)


def test_offloaded_attention_also_copies_its_values_and_output_to_the_host() -> None:
    """As tests/engine/test_activation_offload.py counts: queries, keys, values, output and log-sum-exp."""
    none, some = plan("memory.recompute=none"), plan("memory.recompute=none", "memory.offload_modules=['core_attn']")
    tokens, queries, keys, heads = 131_072 // 8, 4096 // 2, 512 // 2, 32 // 2  # TP2 CP8
    statistics = 4 * heads
    assert some.host_bytes == 48 * tokens * (2 * (2 * queries + 2 * keys) + statistics)
    assert none.peak_bytes - some.peak_bytes == 46 * tokens * (2 * (queries + keys) + statistics)


@pytest.mark.parametrize(
    "tokens", [pytest.param(32_768, marks=pytest.mark.slow), pytest.param(65_536, marks=pytest.mark.slow), 131_072]
)
def test_the_30b_model_fits_on_one_node_of_h100_at_every_length(tokens: int) -> None:
    config, speeds = load_config(RECIPE, [f"data.seq_length_tokens={tokens}"]), find_speeds("h100")
    plans = search(config, 8, speeds, read_workload(config))
    best = choose(each for each in plans if each.fits)
    assert best is not None and best.has_room and best.config.optimizer != config.optimizer
    check_plan(best.config, 8, speeds)
    assert not any(each.fits for each in plans if each.config.optimizer == config.optimizer)


def test_a_search_narrows_the_state_only_where_the_wider_one_leaves_too_little_memory() -> None:
    config, speeds = load_config(RECIPE), find_speeds("h100")
    plans = search(config, 8, speeds, read_workload(config))
    by_layout: dict[object, list[Plan]] = {}
    for each in plans:
        key = (str(each.config.parallel), str(each.config.memory))
        by_layout.setdefault(key, []).append(each)
    assert any(len(group) > 1 for group in by_layout.values())
    for group in by_layout.values():
        assert sum(each.has_room for each in group) <= 1
        if any(each.has_room and each.config.optimizer == config.optimizer for each in group):
            assert len(group) == 1


def test_a_search_in_which_nothing_fits_ranks_by_memory_and_says_what_is_missing_and_what_would_give_it() -> None:
    config, speeds = load_config(RECIPE), find_speeds("h100")
    plans = search(config, 2, speeds, read_workload(config))
    assert not any(each.fits for each in plans)
    assert all(a.peak_bytes <= b.peak_bytes for a, b in itertools.pairwise(plans))
    found = remedies(plans[0])
    text = render_shortage(plans[0], found)
    assert f"{plans[0].missing_bytes / 1e9:.1f} GB are missing on the fullest GPU" in text
    assert "data.seq_length_tokens = 65,536" in text and "4 GPUs with parallel.context = 2, parallel.expert = 4" in text
    assert "ranked by memory" in render_search(plans, 2)
    assert max(map(len, text.splitlines())) <= 80


def test_a_plan_that_does_not_fit_names_each_switch_with_what_it_frees() -> None:
    tight = plan("parallel.expert=4")
    found = {remedy.change: remedy for remedy in remedies(tight)}
    assert not tight.fits and tight.missing_bytes > 0
    remedy = found["optimizer.moments = 'bfloat16'"]
    assert tight.peak_bytes - plan("parallel.expert=4", "optimizer.moments=bfloat16").peak_bytes == remedy.saved_bytes
    flags = [each.fits for each in remedies(tight)]
    assert any(flags) and flags == sorted(flags, reverse=True), "those with which it fits come first"
    assert remedies(plan()) == []


def test_the_words_for_switches_name_everything_that_is_not_the_default() -> None:
    config = load_config(RECIPE, [*NARROW, "memory.recompute=none", "memory.offload_modules=['core_attn']"])
    assert describe_switches(config) == (
        "recompute none; offload core_attn; moments bfloat16; gradients bfloat16; master_weights remainders"
    )
