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
    "train.epochs=11",
)
LAYOUTS = {
    "TP1": (1, ()),
    "TP2": (2, ("parallel.tensor=2",)),
    "EP2": (2, ("parallel.expert=2",)),
    "PP2": (2, ("parallel.pipeline=2",)),
    "DP2 overlapped": (2, ("parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true")),
    "TP2 CP2 EP4": (4, ("parallel.tensor=2", "parallel.context=2", "parallel.expert=4")),
}
THERE_STEP, BACK_STEP, LAST_STEP = 2, 5, 8  # saved at the first, moved, saved at the second, moved back
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def run_dir(recipe: Path, name: str) -> Path:
    return recipe.parent / name.replace(" ", "_").replace(">", "to")


def go_on(recipe: Path, case: Case, _: Result | None) -> Result:
    """Resume this case's run, or start it, and train for three steps or to the end; saves where others go on."""
    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.resume import restore, save
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    config = load_config(recipe, [*ADAM, *case.overrides, f"train.run_dir={run_dir(recipe, case.name)}"])
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        first = (0, THERE_STEP, BACK_STEP)[case.name.count(">")]
        assert trainer.step == first
        losses = []
        while trainer.step < (first + 3 if first else LAST_STEP):
            losses.append(train_step(trainer)["loss"])
            if trainer.step in (THERE_STEP, BACK_STEP) and trainer.step > first:
                save(trainer)
        return Result(losses=losses)


def continued(recipe: Path, moves: list[tuple[str, str]], step: int) -> dict[str, Result]:
    """Go on from the checkpoint that run `source` saved at `step`, in the layout `target`; by the target's name."""
    cases = []
    for source, target in moves:
        world, overrides = LAYOUTS[target]
        cases.append(Case(f"{source} > {target}", world, overrides))
        checkpoints = run_dir(recipe, cases[-1].name) / "checkpoints"
        name = f"step_{step:08d}"
        shutil.copytree(run_dir(recipe, source) / "checkpoints" / name, checkpoints / name)
    return run_cases(recipe, cases, None, go_on)


def test_a_checkpoint_moves_to_every_layout_and_back_with_its_optimizer(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    whole = run_cases(recipe, [Case("TP1", 1)], None, go_on)["TP1"].losses
    assert len(whole) == LAST_STEP and whole[0] - whole[-1] > 0.05
    there: dict[str, Result] = {}
    for world in (2, 4):
        targets = [name for name, (size, _) in LAYOUTS.items() if size == world]
        there |= continued(recipe, [("TP1", target) for target in targets], THERE_STEP)
    back = continued(recipe, [(name, "TP1") for name in there], BACK_STEP)
    assert len(there) == len(back) == len(LAYOUTS) - 1
    for name, result in there.items():
        assert result.losses == pytest.approx(whole[THERE_STEP:BACK_STEP], abs=1e-5), name
    for name, result in back.items():
        assert result.losses == pytest.approx(whole[BACK_STEP:], abs=1e-5), name
