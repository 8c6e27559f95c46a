"""`train.deterministic`: what it sets, for how long, and that a run trains with it."""

import json
import os
from pathlib import Path

import pytest
import torch
from support.run_processes import command_line, start
from support.survivors import arguments, make_small_dataset, write_recipe

from acc_megatron.mesh.deterministic import VARIABLES, deterministic


def state() -> dict[str, object]:
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return variables | {"torch": torch.are_deterministic_algorithms_enabled()}


def test_everything_is_set_within_the_context_and_restored_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = state()
    with deterministic(False):
        assert state() == before
    with deterministic(True):
        assert state() == {
            "torch": True,
            "CUBLAS_WORKSPACE_CONFIG": ":16:8",
            "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
            "NCCL_ALGO": "Ring",
        }
    assert state() == before


def train_and_note_state(command: list[str]) -> None:
    """Train, and write what is set during the first step to a file in the run folder."""
    from acc_megatron.training import train

    original = train.train_step

    def noting(trainer):
        noted = state() | {"Megatron": trainer.transformer.deterministic_mode}
        (Path(trainer.config.train.run_dir) / "noted.json").write_text(json.dumps(noted))
        return original(trainer)

    train.train_step = noting
    command_line(command)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_deterministic_run_trains_with_everything_set(tmp_path: Path) -> None:
    dataset = make_small_dataset(tmp_path, num_documents=2)
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=1, epochs=1)
    run = start(tmp_path / "output", arguments(recipe, tmp_path / "run", "train.deterministic=true"),
                body=train_and_note_state)  # fmt: skip
    assert run.wait() == [0], run.error_output()
    noted = json.loads((tmp_path / "run" / "noted.json").read_text())
    assert noted == {name: accepted[0] for name, accepted in VARIABLES.items()} | {"torch": True, "Megatron": True}
