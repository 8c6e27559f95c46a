"""A run resumes in any other layout, with its optimizer, and has the losses of an uninterrupted run."""

import shutil
from pathlib import Path

import pytest
from support.layout_cases import Case
from support.layout_matrix import Result, run_cases
from support.make_inputs import make_recipe
from support.restarts import uninterrupted_and_resumed

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
    "PP2 VPP2": (2, ("parallel.pipeline=2", "parallel.virtual_pipeline=2")),
    "DP2 overlapped": (2, ("parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true")),
    "TP2 CP2 EP4": (4, ("parallel.tensor=2", "parallel.context=2", "parallel.expert=4")),
    "PP2 VPP2 DP2": (4, ("parallel.pipeline=2", "parallel.virtual_pipeline=2")),
    "TP2 PP2 VPP2": (4, ("parallel.tensor=2", "parallel.pipeline=2", "parallel.virtual_pipeline=2")),
}
pytestmark = pytest.mark.distributed
slow, long = pytest.mark.slow, [pytest.mark.slow, pytest.mark.long]


def run_dir(recipe: Path, name: str) -> Path:
    return recipe.parent / name.replace(" ", "_").replace(">", "to")


def train_case(recipe: Path, case: Case, _: Result | None) -> Result:
    """Train a run for three times `case.num_steps` steps, or for one time if it has moved to another layout.

    It saves after the first and the second third, from where another layout resumes.
    """
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.training.resume import restore, save
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*ADAM, *case.overrides, f"train.run_dir={run_dir(recipe, case.name)}"])
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        first = case.num_steps * case.name.count(">")
        assert trainer.step == first
        losses = []
        while trainer.step < (first + case.num_steps if first else 3 * case.num_steps):
            losses.append(train_step(trainer).loss)
            if trainer.step in (case.num_steps, 2 * case.num_steps):
                save(trainer)
        return Result(losses=losses)


def continued(recipe: Path, moves: list[tuple[str, str]], num_steps: int) -> dict[str, Result]:
    """Resume each run `source` in the layout `target` from where it moves; results by the new run's name."""
    cases = []
    for source, target in moves:
        world, overrides = LAYOUTS[target]
        cases.append(Case(f"{source} > {target}", world, overrides, num_steps=num_steps))
        checkpoints = run_dir(recipe, cases[-1].name) / "checkpoints"
        name = f"step_{num_steps * (1 + source.count('>')):08d}"
        shutil.copytree(run_dir(recipe, source) / "checkpoints" / name, checkpoints / name)
    return run_cases(recipe, cases, None, train_case)


@pytest.mark.parametrize(
    "family, targets, num_steps",
    [
        pytest.param("qwen3_moe", ["EP2"], 1, id="EP2"),
        pytest.param("qwen3_moe", ["EP2", "PP2 VPP2"], 3, id="EP2 and PP2 VPP2", marks=slow),
        pytest.param("qwen3_moe", [name for name in LAYOUTS if name != "TP1"], 3, id="every layout", marks=long),
        pytest.param("qwen3", ["TP2", "PP2 VPP2", "DP2 overlapped", "TP2 PP2 VPP2"], 3, id="dense, tied", marks=long),
    ],
)
def test_a_run_resumes_in_another_layout_and_back_with_its_optimizer(
    family: str, targets: list[str], num_steps: int, tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path, family=family, tie_word_embeddings=family == "qwen3")
    complete = run_cases(recipe, [Case("TP1", 1, num_steps=num_steps)], None, train_case)["TP1"].losses
    assert len(complete) == 3 * num_steps and complete[0] - complete[-1] > 0.01 * num_steps
    there: dict[str, Result] = {}
    for world in sorted({LAYOUTS[name][0] for name in targets}):
        moves = [("TP1", name) for name in targets if LAYOUTS[name][0] == world]
        there |= continued(recipe, moves, num_steps)
    back = continued(recipe, [(name, "TP1") for name in there], num_steps)
    assert len(there) == len(back) == len(targets)
    for name, result in there.items():
        assert result.losses == pytest.approx(complete[num_steps : 2 * num_steps], abs=1e-5), name
    for name, result in back.items():
        assert result.losses == pytest.approx(complete[2 * num_steps :], abs=1e-5), name


def save_and_resume(recipe: Path, case: Case, _: Result | None) -> Result:
    """Return the losses of the two steps after a save at step 2, and then of the same steps after a resume from it."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config

    config = load_config(recipe, [*ADAM, *case.overrides, f"train.run_dir={run_dir(recipe, case.name)}"])
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        (_, complete), (_, resumed) = uninterrupted_and_resumed(config, layout)
    return Result(losses=[*complete[2:], *resumed])


UNSHARDED = "parallel.distributed_optimizer=false"


@pytest.mark.parametrize(
    "layout", ["PP2 VPP2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("PP2 VPP2 DP2", "TP2 PP2 VPP2"))]
)
def test_a_run_with_a_virtual_pipeline_can_be_saved_and_resumed(layout: str, tmp_path: Path) -> None:
    world, overrides = LAYOUTS[layout]
    cases = [Case("sharded optimizer", world, overrides), Case("whole optimizer", world, (*overrides, UNSHARDED))]
    for name, result in run_cases(make_recipe(tmp_path), cases, None, save_and_resume).items():
        uninterrupted, resumed = result.losses[:2], result.losses[2:]
        assert len(set(uninterrupted)) == 2
        assert [loss.hex() for loss in resumed] == [loss.hex() for loss in uninterrupted], name
