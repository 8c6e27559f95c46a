"""An adapter on Transformer Engine's layers, grouped experts included, against the CPU spec on one process."""

from pathlib import Path

import pytest
from support.adapter_matrix import ALL, NORMS, make_adapter, settings
from support.engine.cases import SAVED_STEP, Case, Outcome, assert_equal_to, run_cases, scaled_down
from support.peft_folders import ATTENTION, MLP

Extra = tuple[str, ...]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def extra(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Extra:
    targets = (*ATTENTION, *MLP, "gate", "embed_tokens", "lm_head")
    adapter = make_adapter(tmp_path_factory.mktemp("adapter"), recipe, targets=targets, trained=NORMS)
    return settings(adapter, ALL)


@pytest.fixture(scope="module")
def reference(recipe: Path, extra: Extra) -> Outcome:
    outcome = run_cases(recipe, "cpu", [Case("adapter", 1, extra, saves=True)])["adapter"]
    assert outcome.error is None, outcome.error
    return outcome


def compare(recipe: Path, cases: list[Case], reference: Outcome) -> None:
    assert_equal_to(reference, recipe, cases, called="te_general_grouped_gemm")


def test_an_adapter_on_the_engine_spec_has_the_losses_and_gradients_of_the_cpu_spec(
    recipe: Path, extra: Extra, reference: Outcome
) -> None:
    compare(recipe, [Case("full recompute", 1, extra), Case("none", 1, (*extra, "memory.recompute=none"))], reference)


def test_an_adapter_on_the_engine_spec_has_them_on_two_processes(
    recipe: Path, extra: Extra, reference: Outcome
) -> None:
    axes = ("tensor", "expert", "pipeline")
    compare(recipe, [Case(f"{axis} 2", 2, (*extra, f"parallel.{axis}=2")) for axis in axes], reference)


def test_the_engine_spec_resumes_an_adapter_that_the_cpu_spec_saved(
    recipe: Path, extra: Extra, reference: Outcome
) -> None:
    case = Case("from the CPU spec", 1, extra, resumes="cpu/adapter")
    outcome = run_cases(recipe, "engine", [case])[case.name]
    assert outcome.error is None, outcome.error
    assert outcome.losses == pytest.approx(reference.losses[SAVED_STEP:], abs=1e-5)
