"""An adapter trained in layouts of two and four processes gives the results of one process."""

import dataclasses
from pathlib import Path

import pytest
from support.adapter_matrix import (
    ALL,
    DENSE_ALL,
    NORMS,
    PAIRS,
    SHARDED,
    SINGLES,
    make_adapter,
    one_process,
    run,
    settings,
)
from support.layout_cases import FEW_STEPS, Case, without_experts
from support.layout_matrix import Result, loss_difference, norm_difference
from support.make_inputs import make_recipe
from support.peft_folders import ATTENTION, MLP

pytestmark = pytest.mark.distributed
slow, long = pytest.mark.slow, [pytest.mark.slow, pytest.mark.long]
FAST = [dataclasses.replace(case, num_steps=FEW_STEPS) for case in SINGLES if case.name in ("TP2 (SP)", "EP2")]


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=slow)], ids=["experts", "dense"])
def is_dense(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def recipe(is_dense: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("adapter_matrix"), family="qwen3" if is_dense else "qwen3_moe")


@pytest.fixture(scope="module")
def extra(is_dense: bool, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    router = () if is_dense else ("gate",)
    targets = (*ATTENTION, *MLP, *router, "embed_tokens", "lm_head")
    adapter = make_adapter(tmp_path_factory.mktemp("adapter"), recipe, targets=targets, trained=NORMS)
    return settings(adapter, DENSE_ALL if is_dense else ALL)


@pytest.fixture(scope="module")
def references(recipe: Path, extra: tuple[str, ...]) -> tuple[Result, Result]:
    return one_process(recipe, extra)


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FAST, id="TP2 and EP2"),
        pytest.param(SINGLES, id="every single layout on 2", marks=slow),
        pytest.param(PAIRS, id="pairs on 4", marks=long),
    ],
)
def test_losses_and_gradients_of_an_adapter_equal_those_of_one_process(
    cases: list[Case], is_dense: bool, recipe: Path, extra: tuple[str, ...], references: tuple[Result, Result]
) -> None:
    reference, _ = references
    assert reference.losses[0] - reference.losses[-1] > 0.05, "without a change of weights, wrong scales are not seen"
    results = run(recipe, without_experts(cases) if is_dense else cases, reference, extra)
    differences = {name: (loss_difference(r, reference), r.gradient_difference) for name, r in results.items()}
    assert not {name: pair for name, pair in differences.items() if max(pair) > 1e-5}, differences
    assert any(gradient > 0 for _, gradient in differences.values()), "gradients were not compared"


@pytest.mark.slow
def test_the_distributed_optimizer_gives_an_adapter_the_losses_and_norms_of_one_process(
    is_dense: bool, recipe: Path, extra: tuple[str, ...], references: tuple[Result, Result]
) -> None:
    _, adamw = references
    results = run(recipe, without_experts(SHARDED) if is_dense else SHARDED, None, extra)
    differences = {name: (loss_difference(r, adamw), norm_difference(r, adamw)) for name, r in results.items()}
    assert not {name: pair for name, pair in differences.items() if pair[0] > 1e-5 or pair[1] > 1e-4}, differences
