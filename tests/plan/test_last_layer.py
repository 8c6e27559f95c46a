"""What a last layer of supervised rows saves in a plan."""

import dataclasses

import pytest
from support.commands import ROOT

from acc_megatron.config import load_config
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"
SHORT = ("parallel.context=1", "data.seq_length_tokens=16384", "train.global_batch_rows=32")
ROWS = {name: f"loss.last_layer_rows={name}" for name in ("all", "supervised")}


def plans(*overrides: str, supervised_share: float | None = None) -> tuple[Plan, Plan]:
    """Plan the 30B recipe on 64 H100 with all rows and with supervised ones."""
    found = []
    for rows in ROWS.values():
        config, speeds = load_config(RECIPE, [rows, *overrides]), find_speeds("h100")
        workload = read_workload(config)
        if supervised_share is not None:
            workload = dataclasses.replace(workload, supervised_tokens=supervised_share * workload.document_tokens)
        found.append(make_plan(config, check_plan(config, 64, speeds), speeds, workload))
    return found[0], found[1]


def test_a_step_and_the_activations_become_smaller_by_most_of_one_layer() -> None:
    everything, rows = plans("memory.recompute=none")
    saved = 1 - rows.time.total / everything.time.total
    assert 0.7 / 48 < saved < 1.5 / 48  # the head's rows are shared too
    before, after = everything.stages[0].memory, rows.stages[0].memory
    # together, because the working set of a layer counts where it is larger than that of the head
    assert 0.7 / 48 < 1 - (after.activations + after.loss) / (before.activations + before.loss) < 1.1 / 48
    assert after.loss < before.loss / 2


def test_in_a_pipeline_a_step_takes_at_least_as_long_as_the_stages_with_whole_layers() -> None:
    everything, rows = plans("parallel.pipeline=2")
    with_layers_only = plans("parallel.pipeline=2", supervised_share=1e-6)[0]  # its head takes no time
    assert with_layers_only.time.total <= rows.time.total * (1 + 1e-4) < everything.time.total
    assert rows.stages[0].memory == everything.stages[0].memory


def test_nothing_is_saved_where_every_token_is_supervised() -> None:
    everything, rows = plans(*SHORT, supervised_share=1.0)
    padded = 1 - everything.workload.document_tokens / everything.workload.row_tokens
    saved = 1 - rows.time.total / everything.time.total
    assert saved == pytest.approx(0.0, abs=0.1 * padded / 48 + 1e-3)
