"""Megatron's Transformer Engine spec and extension code, run over the stand-in, against the CPU spec."""

from pathlib import Path

import pytest
from engine_spec import (
    LAYOUTS,
    SAVED_STEP,
    going_on,
    scaled_down,
    train_either_spec,
    train_on_engine_spec,
)
from layout_matrix import SGD, Case, Result, run_cases

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
RECIPES = ("fp8_current", "fp8_blockwise", "fp8_mxfp8")
BF16_LAYERS = ("fp8.bf16_layers_at_start=1", "fp8.bf16_layers_at_end=1")


def fp8_cases(spec: str) -> list[Case]:
    """Each recipe over float32, so that two specs can agree; experts padded by TE's own padding, not by the router.

    With SGD: AdamW's first steps are signs of gradients, which a last bit can turn.
    """
    common = (*LAYOUTS["one process"][1], "moe.dispatcher=allgather", "memory.recompute=none")
    common += ("parallel.distributed_optimizer=false", *SGD)
    layers: dict[str, tuple[str, ...]] = {"float32": ()} | dict.fromkeys(RECIPES, BF16_LAYERS)
    return [
        Case(f"{spec} {name}, float32 base", 1, (*common, f"train.precision={name}", *settings))
        for name, settings in layers.items()
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def plain(recipe: Path) -> dict[str, Result]:
    """The CPU spec on one process; FP8 emulated."""
    cases = [Case("plain", 1, LAYOUTS["one process"][1]), *fp8_cases("plain")]
    return run_cases(recipe, cases, None, train_either_spec)


@pytest.fixture(scope="module")
def engine(recipe: Path, plain: dict[str, Result]) -> dict[str, Result]:
    """Transformer Engine's spec in every layout, with FP8, and going on from the CPU spec's checkpoint."""
    found: dict[str, Result] = {}
    extra = {1: [going_on(recipe, "plain", "one process"), *fp8_cases("engine")], 2: [going_on(recipe, "plain", "TP2")]}
    for world in (1, 2):
        cases = [Case(name, world, settings) for name, (size, settings) in LAYOUTS.items() if size == world]
        found |= run_cases(recipe, [*cases, *extra[world]], None, train_on_engine_spec)
    return found


def test_the_gpu_configuration_gives_the_losses_of_the_cpu_spec_in_every_layout(
    plain: dict[str, Result], engine: dict[str, Result]
) -> None:
    losses = plain["plain"].losses
    assert int(plain["plain"].gradients["layers"]) == 0 and losses[0] - losses[-1] > 0.05
    for name in LAYOUTS:
        assert engine[name].losses == pytest.approx(losses, abs=1e-5), name
        # qkv with its norm, norms of q, k and before the experts, core attention, proj, two grouped layers
        expected = 4 * 8 + 1 if name != "PP2" else 2 * 8
        assert int(engine[name].gradients["layers"]) == expected, f"{name} was built of the stand-in"
        assert int(engine[name].gradients["fp8"]) == 0


def test_checkpoints_move_between_the_two_specs_with_their_optimizer(
    recipe: Path, plain: dict[str, Result], engine: dict[str, Result]
) -> None:
    back = [going_on(recipe, source, "one process") for source in ("one process", "EP2")]
    moved = run_cases(recipe, back, None, train_either_spec)
    moved |= {name: engine[name] for name in ("plain>one process", "plain>TP2")}
    assert len(moved) == 4
    for name, result in moved.items():
        assert result.losses == pytest.approx(plain["plain"].losses[SAVED_STEP:], abs=1e-5), name


@pytest.mark.parametrize("name", RECIPES)
def test_fp8_through_megatrons_own_context_is_what_the_cpu_spec_emulates(
    name: str, plain: dict[str, Result], engine: dict[str, Result]
) -> None:
    emulated, real = (found[f"{spec} {name}, float32 base"] for spec, found in (("plain", plain), ("engine", engine)))
    exact = plain["plain float32, float32 base"]
    # a last bit turns the rounding of a few values, and each turn is worth 1/16 of its value: hence the second bounds
    assert real.losses[0] == pytest.approx(emulated.losses[0], abs=1e-5)
    assert real.losses == pytest.approx(emulated.losses, abs=2e-3)
    assert distance(real, emulated) < 5e-3
    assert distance(emulated, exact) > 2e-2, "eight bits must show"
    # Megatron opens the context in 2 of 4 layers, 4 rows a step, 5 steps
    assert int(real.gradients["fp8"]) == 2 * 4 * 5 and int(emulated.gradients["fp8"]) == 0


def distance(one: Result, other: Result) -> float:
    """Of the first step's gradients, relative to their norm."""
    pairs = [(one.gradients[name], other.gradients[name]) for name in one.gradients if name not in ("layers", "fp8")]
    assert len(pairs) > 50
    square = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return (square / sum(float(b.double().square().sum()) for _, b in pairs)) ** 0.5
