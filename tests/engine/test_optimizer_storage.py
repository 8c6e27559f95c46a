"""Optimizer state that is narrow or in host memory: Transformer Engine's FusedAdam and Megatron's hybrid optimizer."""

from pathlib import Path

import pytest
from support.engine.cases import SAVED_STEP, Case, Outcome, Spec, run_cases, scaled_down

BASE = ("train.precision=bfloat16", "parallel.distributed_optimizer=true")
NUM_STEPS = 5  # a resumed run makes several updates
STORED = {
    "float32": (),
    "bfloat16, remainders": ("optimizer.moments=bfloat16", "optimizer.master_weights=remainders"),
    "fp8, gradients bfloat16": ("optimizer.moments=fp8", "optimizer.gradients=bfloat16"),
    "fp8, float16": ("optimizer.moments=fp8", "optimizer.master_weights=float16"),
    "half in host memory": ("optimizer.offload_fraction=0.5",),
    "all in host memory": ("optimizer.offload_fraction=1.0",),
}
# a rounding of a bfloat16 gradient or of a stored moment shows in the loss of the next steps
TOLERANCE = {name: 2e-5 if "host" in name else 5e-4 for name in STORED}


def case(name: str, world: int, resumes: str | None = None) -> Case:
    return Case(f"{name}, {world}" + (", resumed" if resumes else ""), world, (*BASE, *STORED[name]), saves=True,
                resumes=resumes, compares_gradients=False, num_steps=NUM_STEPS)  # fmt: skip


WORLDS = [1, pytest.param(2, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    recipe = scaled_down(folder)
    succeeded(recipe, "cpu", [Case("one process")])
    return recipe


@pytest.fixture(scope="module", params=WORLDS)
def world(request: pytest.FixtureRequest) -> int:
    """The number of processes over which the state is divided."""
    return int(request.param)


def succeeded(recipe: Path, spec: Spec, cases: list[Case]) -> dict[str, Outcome]:
    """Run cases of one world size."""
    found = run_cases(recipe, spec, cases)
    for name, outcome in found.items():
        assert outcome.error is None, f"{name}: {outcome.error}"
    return found


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, world: int) -> dict[str, Outcome]:
    """Every storage; saved after SAVED_STEP."""
    return succeeded(recipe, "engine", [case(name, world) for name in STORED])


def test_the_losses_are_those_of_float32_state(uninterrupted: dict[str, Outcome], world: int) -> None:
    reference = uninterrupted[f"float32, {world}"]
    assert reference.losses[0] - reference.losses[-1] > 0.05, "weights must move"
    for name in STORED:
        outcome = uninterrupted[f"{name}, {world}"]
        assert outcome.losses == pytest.approx(reference.losses, rel=TOLERANCE[name]), name
        # an update that is completely in host memory calls no function of Transformer Engine
        calls = sum(outcome.calls.get(each, 0) for each in ("multi_tensor_adam", "multi_tensor_adam_param_remainder"))
        assert (calls > 0) == (name != "all in host memory"), name


@pytest.mark.parametrize("spec", ["engine", "cpu"])
def test_a_resumed_run_continues_like_an_uninterrupted_one(
    recipe: Path, world: int, uninterrupted: dict[str, Outcome], spec: Spec
) -> None:
    cases = [case(name, world, resumes=f"engine/{name}, {world}") for name in STORED]
    for name, outcome in succeeded(recipe, spec, cases).items():
        expected = uninterrupted[name.removesuffix(", resumed")].losses[SAVED_STEP:]
        if spec == "engine":
            assert [loss.hex() for loss in outcome.losses] == [loss.hex() for loss in expected], name
        else:
            assert outcome.losses == pytest.approx(expected, rel=1e-4), name
