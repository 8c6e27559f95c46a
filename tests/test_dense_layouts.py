"""Dense Qwen3 with tied embeddings and YaRN: layouts give the results of one process, and these are transformers'."""

import dataclasses
from pathlib import Path

import pytest
from support.layout_cases import FEW_STEPS, PAIRS, SHARDED_PAIRS, SHARDED_SINGLES, SINGLES, Case, without_experts
from support.layout_matrix import DENSE, Result, loss_difference, norm_difference, one_process, run_cases
from support.make_inputs import make_recipe
from support.transformers_gradients import float64_gradients

pytestmark = pytest.mark.distributed
slow, long = pytest.mark.slow, [pytest.mark.slow, pytest.mark.long]


def _few_steps(cases: list[Case], *names: str) -> list[Case]:
    return [dataclasses.replace(case, num_steps=FEW_STEPS) for case in cases if case.name in names]


FAST = _few_steps(SINGLES, "TP2 (SP)", "PP2")
RECOMPUTE = ("memory.recompute=selective", "memory.recompute_modules=['mlp', 'layernorm']")
SLOW = [case for case in without_experts(SINGLES) if case.name not in ("TP2 (SP)", "PP2")]
SLOW.append(Case("TP2 recompute of MLP and norms", 2, ("parallel.tensor=2", *RECOMPUTE)))
SLOW_PAIRS = [case for case in without_experts(PAIRS) if case.name in ("TP2 CP2", "TP2 PP2", "CP2 PP2")]
FAST_SHARDED = _few_steps(SHARDED_SINGLES, SHARDED_SINGLES[-1].name)
SLOW_SHARDED = [case for case in SHARDED_PAIRS if case.name.startswith(("TP2 DP2", "PP2 DP2"))]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("dense"), **DENSE)


@pytest.fixture(scope="module")
def references(recipe: Path) -> tuple[Result, Result]:
    return one_process(recipe)


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FAST, id="TP2 and PP2"),
        pytest.param(SLOW, id="every other layout on 2", marks=slow),
        pytest.param(SLOW_PAIRS, id="pairs on 4", marks=long),
    ],
)
def test_losses_and_gradients_of_every_layout_equal_those_of_one_process(
    cases: list[Case], recipe: Path, references: tuple[Result, Result]
) -> None:
    reference, _ = references
    assert reference.losses[0] - reference.losses[-1] > 0.05, "without a change of weights, wrong scales are not seen"
    results = run_cases(recipe, cases, reference)
    differences = {name: (loss_difference(r, reference), r.gradient_difference) for name, r in results.items()}
    assert not {name: pair for name, pair in differences.items() if max(pair) > 1e-5}, differences
    assert any(gradient > 0 for _, gradient in differences.values()), "gradients were not compared"


@pytest.mark.parametrize(
    "cases", [pytest.param(FAST_SHARDED, id="DP2"), pytest.param(SLOW_SHARDED, id="pairs on 4", marks=long)]
)
def test_the_distributed_optimizer_gives_the_losses_and_norms_of_one_process(
    cases: list[Case], recipe: Path, references: tuple[Result, Result]
) -> None:
    _, adamw = references
    results = run_cases(recipe, cases, None)
    differences = {name: (loss_difference(r, adamw), norm_difference(r, adamw)) for name, r in results.items()}
    assert not {name: pair for name, pair in differences.items() if pair[0] > 1e-5 or pair[1] > 1e-4}, differences


@pytest.mark.slow
def test_gradients_of_one_process_equal_those_of_transformers_in_float64(
    recipe: Path, references: tuple[Result, Result]
) -> None:
    reference, _ = references
    loss, exact = float64_gradients(recipe)
    assert reference.losses[0] == pytest.approx(loss, abs=1e-5)
    assert reference.gradients.keys() == exact.keys()
    for name, gradient in reference.gradients.items():
        largest = float(exact[name].abs().max())
        assert float((gradient - exact[name]).abs().max()) <= 1e-5 * largest, name
