"""The router's balancing loss means what its coefficient says, whatever the share of supervised tokens."""

from pathlib import Path

import pytest
import torch
from layout_matrix import Case, Result, run_cases
from make_inputs import make_recipe

SHARES = (1, 8, 25)  # one supervised token in so many
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
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def router_gradients(recipe: Path, case: Case, _: Result | None) -> Result:
    """Gradients of all routers after one global batch; the case is named `kind/share`."""
    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.data.loader import Loader, PackedRow
    from acc_megatron.resume import restore
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

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
    with process_groups(config.parallel, timeout_seconds=60) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        trainer.loader = MaskedLoader(trainer.loader.dataset, config.data, config.model, layout, seed=0)
        train_step(trainer)
        routers = [p for name, p in trainer.models[0].named_parameters() if name.endswith("mlp.router.weight")]
        return Result(gradients={"routers": torch.stack([router.main_grad.clone() for router in routers])})


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """`layout/kind/share` -> the gradient with the balancing loss less that without it."""
    recipe = make_recipe(tmp_path_factory.mktemp("balancing"))
    found = {}
    for layout, (world, overrides) in LAYOUTS.items():
        cases = [
            Case(f"{kind}/{share}", world, (*overrides, *settings))
            for kind, settings in (KINDS | {"none": ()}).items()
            for share in SHARES
        ]
        results = run_cases(recipe, cases, None, router_gradients)
        for kind in KINDS:
            for share in SHARES:
                with_loss, without = (results[f"{name}/{share}"].gradients["routers"] for name in (kind, "none"))
                found[f"{layout}/{kind}/{share}"] = with_loss - without
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_balancing_gradient_is_the_same_at_every_share_of_supervised_tokens(
    layout: str, kind: str, parts: dict[str, torch.Tensor]
) -> None:
    # the global loss averages over microbatches in the order a rank meets them, so each layout has a mean of its own
    reference = parts[f"{layout if kind == 'global_aux_loss' else 'one process'}/{kind}/1"]
    scale = float(reference.abs().max())
    assert scale > 1e-4, "the balancing loss must pull"
    for share in SHARES:
        difference = float((parts[f"{layout}/{kind}/{share}"] - reference).abs().max())
        assert difference <= 1e-3 * scale, f"one in {share}: {difference / scale:.2e} of the gradient"
