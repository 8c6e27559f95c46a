"""The plan of a save is used again for equal tensors, and only for them."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.layout_cases import Case
from support.layout_matrix import Result, run_cases
from support.make_inputs import make_recipe

BASE = ("parallel.distributed_optimizer=true", "optimizer.kind=adamw", "optimizer.learning_rate=1e-2", "train.epochs=9")


def written(folder: Path) -> dict[str, Any]:
    """Size and hash of the file of every rank; .metadata has a random number."""
    from acc_megatron.checkpoint.locate import read_json

    files = read_json(folder / "manifest.json")["files"]
    return {name: entry for name, entry in files.items() if name.endswith(".distcp")}


def save_four_times(recipe: Path, case: Case, _: Result | None) -> Result:
    """Save without a plan, then with the plan of that save, then other tensors; returns the numbers of new plans."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    import torch.distributed as dist

    from acc_megatron.checkpoint import integrity, save_plan, store
    from acc_megatron.config import load_config
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*BASE, *case.overrides, f"train.run_dir={recipe.parent / 'unused'}"])
    last_plan, made = save_plan.LastPlan(), []
    plan = save_plan._Planner.create_local_plan

    def counted(self: Any) -> Any:
        made.append(1)
        return plan(self)

    with process_groups(config.parallel) as layout, mock.patch.object(save_plan._Planner, "create_local_plan", counted):
        trainer = build_trainer(config, layout)
        train_step(trainer)
        manifests, counts = [], []
        for number, (optimizer, known) in enumerate(
            [(trainer.optimizer, None), (trainer.optimizer, last_plan), (trainer.optimizer, last_plan),
             (None, last_plan)]
        ):  # fmt: skip
            if number == 2:
                train_step(trainer)
            folder = recipe.parent / str(number) / "step_00000001"
            store.Save(folder, trainer.models, optimizer, {"step": 1, "model": {}}, last_plan=known).finish()
            integrity.verify(folder)
            manifests.append(written(folder))
            counts.append(len(made))
        assert manifests[0] == manifests[1]
        assert manifests[0] != manifests[2]
        train_step(trainer)
        store.load(recipe.parent / "2" / "step_00000001", trainer.models, trainer.optimizer)
        folder = recipe.parent / "4" / "step_00000001"
        store.Save(folder, trainer.models, trainer.optimizer, {"step": 1, "model": {}}).finish()
        assert written(folder) == manifests[2]
        # one rank with other tensors is enough for a new plan
        other = save_plan.LastPlan(last_plan.tensors, last_plan.own, last_plan.metadata)
        state = store._sharded_state(trainer.models, None, of_adapter=False)
        assert other.holds_for(state)
        other.tensors = other.tensors[:-1] if dist.get_rank() == 0 else other.tensors
        assert not other.holds_for(state)
    return Result(losses=[float(count) for count in counts])


@pytest.mark.distributed
@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_save_of_equal_tensors_uses_the_last_plan_and_writes_the_bytes_of_a_new_one(
    world: int, tmp_path: Path
) -> None:
    found = run_cases(make_recipe(tmp_path), [Case("saves", world)], None, save_four_times)["saves"].losses
    assert found == [1, 2, 2, 3], "new, new because the LastPlan was empty, known, new for other tensors"
