"""The router's balancing loss depends neither on the share of supervised tokens, nor on the layout, nor on padding."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.layout_cases import (
    BALANCED,
    BALANCED_PAIRS,
    BALANCED_SINGLES,
    FAST_BALANCED,
    FEW_STEPS,
    SUPERVISED,
    Case,
    supervised,
)
from support.layout_matrix import Result, loss_difference, run_cases
from support.make_inputs import make_recipe
from support.transformers_gradients import Balancing, float64_gradients

SHARES = (2, 8, 25)  # one of this many tokens is supervised
KINDS = {
    "aux_loss": ("moe.load_balancing=aux_loss", "moe.load_balancing_coefficient=1.0"),
    "global_aux_loss": ("moe.load_balancing=global_aux_loss", "moe.load_balancing_coefficient=1.0"),
    "z_loss": ("moe.z_loss_coefficient=1.0",),
}
LAYOUTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "one process": (1, ()),
    "EP2": (2, ("parallel.expert=2",)),
    "CP2": (2, ("parallel.context=2",)),
}
ONE_EPOCH = ("train.epochs=1",)  # three rows, so that the batch of four has an empty row
pytestmark = pytest.mark.distributed


def router_gradients(recipe: Path, case: Case, _: Result | None) -> Result:
    """Return the gradients of all routers after one global batch; the case is named `kind/share`."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.data.loader import Loader, PackedRow
    from acc_megatron.training.resume import restore
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    one_in = int(case.name.split("/")[1])

    class MaskedLoader(Loader):
        def row(self, number: int) -> PackedRow:
            row = super().row(number)
            row.loss_mask.zero_()
            row.loss_mask[::one_in] = 1.0
            return row

        def num_supervised_tokens(self, batch: list[int]) -> int:
            return sum(int(self.row(number).loss_mask.sum()) for number in batch)

    config = load_config(recipe, case.overrides)
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        trainer.loader = MaskedLoader(trainer.loader.dataset, config.data, config.model, layout, seed=0)
        train_step(trainer)
        routers = [p for name, p in trainer.models[0].named_parameters() if name.endswith("mlp.router.weight")]
        return Result(gradients={"routers": torch.stack([router.main_grad.clone() for router in routers])})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("balancing"))


@pytest.fixture(scope="module")
def measured(recipe: Path) -> Callable[[str, str], dict[int, torch.Tensor]]:
    """Return the gradient with a balancing loss minus the gradient without it, by share; each case runs once."""
    known: dict[str, torch.Tensor] = {}

    def gradients(layout: str, kind: str) -> dict[int, torch.Tensor]:
        world, overrides = LAYOUTS[layout]
        cases = [
            Case(f"{name}/{share}", world, (*overrides, *settings))
            for name, settings in (("none", ()), (kind, KINDS[kind]))
            for share in SHARES
            if f"{layout}/{name}/{share}" not in known
        ]
        if cases:
            found = run_cases(recipe, cases, None, router_gradients)
            known.update({f"{layout}/{name}": result.gradients["routers"] for name, result in found.items()})
        return {share: known[f"{layout}/{kind}/{share}"] - known[f"{layout}/none/{share}"] for share in SHARES}

    return gradients


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        pytest.param(layout, kind, marks=() if (layout, kind) == ("one process", "aux_loss") else pytest.mark.slow)
        for layout in LAYOUTS
        for kind in KINDS
    ],
)
def test_the_balancing_gradient_is_the_same_at_every_share_of_supervised_tokens(
    layout: str, kind: str, measured: Callable[[str, str], dict[int, torch.Tensor]]
) -> None:
    # the global loss averages over the microbatches of a rank, so that its mean depends on the layout
    reference = measured(layout if kind == "global_aux_loss" else "one process", kind)[SHARES[0]]
    scale = float(reference.abs().max())
    assert scale > 1e-4, "the balancing loss must have a gradient"
    for share, gradient in measured(layout, kind).items():
        difference = float((gradient - reference).abs().max())
        assert difference <= 1e-3 * scale, f"one in {share}: {difference / scale:.2e} of the gradient"


@pytest.fixture(scope="module")
def references(recipe: Path) -> dict[str, Result]:
    """One process with balancing losses."""
    cases = [
        Case("all rows", 1, BALANCED, num_steps=FEW_STEPS),
        Case("an empty row", 1, (*BALANCED, *ONE_EPOCH), num_steps=1),
        Case("supervised rows", 1, (*BALANCED, *ONE_EPOCH, *SUPERVISED), num_steps=1),
    ]
    return run_cases(recipe, cases, None)


@pytest.fixture(scope="module")
def balanced(references: dict[str, Result]) -> Result:
    return references["all rows"]


@pytest.fixture(scope="module")
def with_empty_row(references: dict[str, Result]) -> Result:
    return references["an empty row"]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FAST_BALANCED, id="on 2"),
        pytest.param(BALANCED_SINGLES, id="every single layout on 2", marks=pytest.mark.slow),
        pytest.param(BALANCED_PAIRS, id="every pair on 4", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_the_balancing_losses_of_every_layout_equal_those_of_one_process(
    cases: list[Case], recipe: Path, balanced: Result
) -> None:
    results = run_cases(recipe, cases, balanced)
    differences = {name: (loss_difference(r, balanced), r.gradient_difference) for name, r in results.items()}
    wrong = {name: pair for name, pair in differences.items() if max(pair) > 1e-5}
    assert not wrong, f"(loss difference, relative gradient difference): {wrong}"
    assert any(gradient > 0 for _, gradient in differences.values()), "gradients were not compared"


def test_the_balancing_losses_of_documents_equal_those_of_transformers_routers_in_float64(
    recipe: Path, with_empty_row: Result
) -> None:
    _, exact = float64_gradients(recipe, balancing=Balancing(loss=1.0, z_loss=0.1), overrides=ONE_EPOCH)
    _, without = float64_gradients(recipe, overrides=ONE_EPOCH)
    found = with_empty_row.gradients
    routers = [name for name in found if name.endswith("mlp.gate.weight")]
    assert routers
    for name in routers:
        largest = float(exact[name].abs().max())
        assert float((exact[name] - without[name]).abs().max()) > 0.01 * largest, "the balancing loss must show"
        assert float((found[name] - exact[name]).abs().max()) <= 1e-5 * largest, name


def test_the_balancing_losses_of_a_last_layer_of_supervised_rows_equal_those_of_their_tokens_in_float64(
    recipe: Path, references: dict[str, Result]
) -> None:
    balancing = Balancing(loss=1.0, z_loss=0.1, last_layer_supervised=True)
    _, exact = float64_gradients(recipe, balancing=balancing, overrides=ONE_EPOCH)
    found = references["supervised rows"].gradients
    for name in (name for name in found if name.endswith("mlp.gate.weight")):
        largest = float(exact[name].abs().max())
        assert float((found[name] - exact[name]).abs().max()) <= 1e-5 * largest, name
    last = max(name for name in found if name.endswith("mlp.gate.weight"))
    others = references["an empty row"].gradients[last]
    assert float((found[last] - others).abs().max()) > 0.01 * float(others.abs().max()), "all tokens were balanced"


@pytest.mark.slow
def test_the_balancing_losses_of_a_last_layer_of_supervised_rows_do_not_depend_on_the_layout(
    recipe: Path, references: dict[str, Result]
) -> None:
    settings = (*BALANCED, *ONE_EPOCH)
    cases = [
        Case(name, 2, (*settings, f"parallel.{name}=2"), num_steps=1) for name in ("tensor", "context", "pipeline")
    ] + [Case("data", 2, settings, num_steps=1)]
    results = run_cases(recipe, supervised(cases), references["supervised rows"])
    differences = {name: result.gradient_difference for name, result in results.items()}
    assert all(0 <= difference <= 1e-5 for difference in differences.values()), differences
    assert any(differences.values()), "gradients were not compared"
