"""A checkpoint of any layout goes on in any other, optimizer included, as if the run had never stopped."""

import shutil
from pathlib import Path

import pytest
from layout_matrix import Case, Result, run_cases
from make_inputs import make_recipe

ADAM = (
    "optimizer.kind=adamw",
    "optimizer.learning_rate=1e-3",
    "optimizer.min_learning_rate=1e-3",
    "optimizer.clip_grad_norm=1.0",
    "parallel.distributed_optimizer=true",
)
LAYOUTS = {
    "TP1": (1, ()),
    "TP2": (2, ("parallel.tensor=2",)),
    "EP2": (2, ("parallel.expert=2",)),
    "PP2": (2, ("parallel.pipeline=2",)),
    "DP2 overlapped": (2, ("parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true")),
    "TP2 CP2 EP4": (4, ("parallel.tensor=2", "parallel.context=2", "parallel.expert=4")),
}
SAVED_STEP, LAST_STEP = 2, 5
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def go_on(recipe: Path, case: Case, _: Result | None) -> Result:
    """Restore this case's run and train to LAST_STEP, or train from the start to SAVED_STEP and save."""
    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.resume import restore, save
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    run_dir = recipe.parent / case.name.replace(" ", "_").replace(">", "")
    config = load_config(recipe, [*ADAM, *case.overrides, f"train.run_dir={run_dir}"])
    with process_groups(config.parallel, timeout_seconds=120) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        assert trainer.step == (SAVED_STEP if ">" in case.name else 0)
        losses = []
        while trainer.step < LAST_STEP:
            losses.append(train_step(trainer)["loss"])
            if trainer.step == SAVED_STEP:
                save(trainer)
        return Result(losses=losses)


def _continue(recipe: Path, source: str, target: str) -> Result:
    """Start `target` from the checkpoint that `source` saved."""
    world, overrides = LAYOUTS[target]
    case = Case(f"{source} > {target}", world, overrides)
    run_dir = recipe.parent / case.name.replace(" ", "_").replace(">", "")
    shutil.copytree(recipe.parent / source.replace(" ", "_") / "checkpoints", run_dir / "checkpoints")
    return run_cases(recipe, [case], None, go_on)[case.name]


def test_a_checkpoint_moves_between_layouts_and_back_with_its_optimizer(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    whole = run_cases(recipe, [Case("TP1", 1)], None, go_on)["TP1"].losses
    wide = run_cases(recipe, [Case("TP2 CP2 EP4", 4, LAYOUTS["TP2 CP2 EP4"][1])], None, go_on)["TP2 CP2 EP4"].losses
    assert wide == pytest.approx(whole, abs=1e-5)
    assert whole[0] - whole[-1] > 0.05
    moves = [("TP1", target) for target in LAYOUTS if target != "TP1"] + [("TP2 CP2 EP4", "TP1")]
    for source, target in moves:
        losses = _continue(recipe, source, target).losses
        assert losses == pytest.approx(whole[SAVED_STEP:], abs=1e-5), f"{source} -> {target}"
