"""Megatron's Transformer Engine spec and extension code, run over the stand-in, against the CPU spec."""

import shutil
from pathlib import Path

import pytest
from engine_spec import LAYOUTS, SAVED_STEP, scaled_down, train_either_spec, train_on_engine_spec
from layout_matrix import Case, Result, run_cases

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def plain(recipe: Path) -> Result:
    """The CPU spec on one process."""
    case = Case("plain", 1, LAYOUTS["one process"][1])
    return run_cases(recipe, [case], None, train_either_spec)["plain"]


@pytest.fixture(scope="module")
def engine(recipe: Path) -> dict[str, Result]:
    """Transformer Engine's spec in every layout."""
    found: dict[str, Result] = {}
    for world in (1, 2):
        cases = [Case(name, world, settings) for name, (size, settings) in LAYOUTS.items() if size == world]
        found |= run_cases(recipe, cases, None, train_on_engine_spec)
    return found


def test_the_gpu_configuration_gives_the_losses_of_the_cpu_spec_in_every_layout(
    plain: Result, engine: dict[str, Result]
) -> None:
    assert int(plain.gradients["layers"]) == 0 and plain.losses[0] - plain.losses[-1] > 0.05
    assert set(engine) == set(LAYOUTS)
    for name, result in engine.items():
        assert result.losses == pytest.approx(plain.losses, abs=1e-5), name
        # qkv with its norm, norms of q, k and before the experts, core attention, proj, two grouped layers
        expected = 4 * 8 + 1 if name != "PP2" else 2 * 8
        assert int(result.gradients["layers"]) == expected, f"{name} was built of the stand-in"


def test_checkpoints_move_between_the_two_specs_with_their_optimizer(
    recipe: Path, plain: Result, engine: dict[str, Result]
) -> None:
    runs = recipe.parent / "runs"
    for source, target, measure in (
        ("plain", "one process", train_on_engine_spec),
        ("plain", "TP2", train_on_engine_spec),
        ("one_process", "one process", train_either_spec),
        ("EP2", "one process", train_either_spec),
    ):
        world, settings = LAYOUTS[target]
        case = Case(f"{source}>{target} {measure.__name__}", world, settings)
        run_dir = runs / case.name.replace(" ", "_").replace(">", "")
        shutil.copytree(runs / source / "checkpoints", run_dir / "checkpoints")
        losses = run_cases(recipe, [case], None, measure)[case.name].losses
        assert losses == pytest.approx(plain.losses[SAVED_STEP:], abs=1e-5), case.name
