"""Layouts of two and four processes give the results of one process, on packed documents of different lengths."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.layout_cases import (
    FAST_ON_2,
    FAST_ON_4,
    FAST_SHARDED,
    FAST_SUPERVISED,
    PAIRS,
    SHARDED_PAIRS,
    SHARDED_SINGLES,
    SINGLES,
    SUPERVISED,
    SUPERVISED_PAIRS,
    SUPERVISED_SINGLES,
    Case,
)
from support.layout_matrix import Result, loss_difference, norm_difference, one_process, run_cases
from support.make_inputs import make_recipe
from support.transformers_gradients import float64_gradients

from acc_megatron.config import load_config

pytestmark = pytest.mark.distributed
slow, long = pytest.mark.slow, [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def references(recipe: Path) -> tuple[Result, Result]:
    return one_process(recipe)


@pytest.fixture(scope="module")
def reference(references: tuple[Result, Result]) -> Result:
    return references[0]


@pytest.fixture(scope="module")
def measured(recipe: Path, reference: Result) -> Callable[[list[Case]], dict[str, Result]]:
    """Run a list of layouts once, whichever test needs it first."""
    known: dict[int, dict[str, Result]] = {}

    def run(cases: list[Case]) -> dict[str, Result]:
        if id(cases) not in known:
            known[id(cases)] = run_cases(recipe, cases, reference)
        return known[id(cases)]

    return run


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FAST_ON_2, id="each axis on 2"),
        pytest.param(FAST_ON_4, id="TP2 CP2 EP4"),
        pytest.param(FAST_SUPERVISED, id="supervised rows on 2"),
        pytest.param(SINGLES, id="every single layout on 2", marks=slow),
        pytest.param(PAIRS, id="every pair on 4", marks=long),
        pytest.param(SUPERVISED_SINGLES, id="supervised rows, every single layout on 2", marks=slow),
        pytest.param(SUPERVISED_PAIRS, id="supervised rows, every pair on 4", marks=long),
    ],
)
def test_losses_and_gradients_of_every_layout_equal_those_of_one_process(
    cases: list[Case], measured: Callable[[list[Case]], dict[str, Result]], reference: Result
) -> None:
    assert reference.losses[0] - reference.losses[-1] > 0.05, "without a change of weights, wrong scales are not seen"
    results = measured(cases)
    differences = {name: (loss_difference(r, reference), r.gradient_difference) for name, r in results.items()}
    wrong = {name: pair for name, pair in differences.items() if max(pair) > 1e-5}
    assert not wrong, f"(loss difference, relative gradient difference): {wrong}"
    # pipeline stages by themselves do not change the order of any sum, so that their difference is exactly 0
    assert any(gradient > 0 for _, gradient in differences.values()), "gradients were not compared"


@slow
def test_context_parallelism_does_not_change_the_losses(
    measured: Callable[[list[Case]], dict[str, Result]], reference: Result
) -> None:
    for result in (measured(SINGLES)["CP2"], measured(PAIRS)["CP4"]):
        assert result.losses == pytest.approx(reference.losses, rel=1e-6)
        assert 0 < result.gradient_difference <= 1e-5


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FAST_SHARDED, id="DP2"),
        pytest.param(SHARDED_SINGLES, id="on 2", marks=slow),
        pytest.param(SHARDED_PAIRS, id="pairs on 4", marks=long),
    ],
)
def test_losses_and_gradient_norms_with_the_distributed_optimizer_equal_those_of_one_process(
    cases: Sequence[Case], recipe: Path, references: tuple[Result, Result]
) -> None:
    _, adamw = references
    assert adamw.losses[0] - adamw.losses[-1] > 0.05
    results = run_cases(recipe, cases, None)
    differences = {name: (loss_difference(r, adamw), norm_difference(r, adamw)) for name, r in results.items()}
    # torch's float32 norm of ten million values has an error of 3e-5 in one process and of 3e-6 in four parts; a wrong
    # scale would be a factor of 2 or 4
    wrong = {name: pair for name, pair in differences.items() if pair[0] > 1e-5 or pair[1] > 1e-4}
    assert not wrong, f"(loss difference, relative norm difference): {wrong}"


def _rows_at_the_final_norm(recipe: Path, case: Case, _: Result | None) -> Result:
    """Return as losses the rows at the final norm in each microbatch of a step, and as norms the rows that it needs."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.training.step import train_step
    from acc_megatron.training.suffix_rows import suffix_lengths
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, case.overrides)
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        norm = trainer.models[0].decoder.final_layernorm
        result = Result()
        norm.register_forward_hook(lambda _, inputs, __: result.losses.append(float(len(inputs[0]))))
        batch = trainer.loader.batch(0, config.train.global_batch_rows, config.train.epochs)
        rows = trainer.loader.rank_rows(batch, 0, 0)
        for row in rows:
            expected = suffix_lengths(row.loss_mask.numpy() != 0, row.cu_seqlens, 1)
            result.norms.append(float(sum(expected)))
        train_step(trainer)
        return result


def test_only_supervised_rows_reach_the_final_norm(recipe: Path) -> None:
    result = run_cases(recipe, [Case("supervised", 1, SUPERVISED)], None, _rows_at_the_final_norm)["supervised"]
    assert result.losses == result.norms and max(result.losses) < 512 / 3


@slow
def test_gradients_of_one_process_equal_those_of_transformers_in_float64(recipe: Path, reference: Result) -> None:
    import torch

    config, (loss, exact) = load_config(recipe), float64_gradients(recipe)
    assert reference.losses[0] == pytest.approx(loss, abs=1e-5)
    compared = 0
    for name, gradient in reference.gradients.items():
        if name in exact:  # transformers has a layer's experts in one tensor, which is compared below
            largest = float(exact[name].abs().max())
            assert float((gradient - exact[name]).abs().max()) <= 1e-5 * largest, name
            compared += 1
    for layer in range(config.model.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        both = torch.stack(
            [
                torch.cat([reference.gradients[f"{prefix}{e}.{half}_proj.weight"] for half in ("gate", "up")])
                for e in range(config.model.num_experts)
            ]
        )
        largest = float(exact[f"{prefix}gate_up_proj"].abs().max())
        assert float((both - exact[f"{prefix}gate_up_proj"]).abs().max()) <= 1e-5 * largest, prefix
    assert compared >= 3 + 9 * config.model.num_hidden_layers - 1
