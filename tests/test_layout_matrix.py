"""Every layout of two and four processes equals one process, on packed uneven documents supervised at their end."""

from pathlib import Path

import pytest
from layout_matrix import PAIRS, SINGLES, Case, Result, loss_difference, one_process, run_cases
from make_inputs import make_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def reference(recipe: Path) -> Result:
    return one_process(recipe)


@pytest.mark.parametrize(
    "cases", [SINGLES, PAIRS], ids=["every single layout of 2", "every pair on 4, and TP2 CP2 EP4"]
)
def test_losses_and_gradients_of_every_layout_are_those_of_one_process(
    cases: list[Case], recipe: Path, reference: Result
) -> None:
    assert reference.losses[0] - reference.losses[-1] > 0.05, "weights must move, or scale errors stay unseen"
    results = run_cases(recipe, cases, reference)
    wrong = {
        name: (loss_difference(result, reference), result.gradient_difference)
        for name, result in results.items()
        if loss_difference(result, reference) > 1e-5 or result.gradient_difference > 1e-5
    }
    assert not wrong, f"(loss difference, relative gradient difference): {wrong}"
    assert any(result.gradient_difference > 0 for result in results.values()), "gradients were compared"
