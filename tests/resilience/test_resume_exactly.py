"""An interrupted run ends with the same weights as an uninterrupted one; the processes are really killed.

Promises T1, T2, T3 and T5 of docs/promises.md.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support.make_inputs import make_one_row_documents
from support.run_processes import start
from support.survivors import (
    arguments,
    killed_while_accumulating,
    make_small_dataset,
    train_and_hash,
    write_recipe,
)

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.observe.metrics import STEPS_FILE, LoggedStep, read_steps
from acc_megatron.observe.usage import from_ranges

pytestmark = pytest.mark.distributed
NUM_DOCUMENTS = 16
LAYOUTS = {
    "one process": (1, ()),
    "EP2 CP2": (2, ("parallel.expert=2", "parallel.context=2")),
    "DP2, distributed optimizer": (2, ("parallel.distributed_optimizer=true", "train.global_batch_rows=2")),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_dataset(tmp_path_factory.mktemp("documents"), NUM_DOCUMENTS)


def hashes(run_dir: Path, step: int, world: int) -> list[dict[str, Any]]:
    return [json.loads((run_dir / f"hashes_{step}_{rank}.json").read_text()) for rank in range(world)]


def finish(folder: Path, command: list[str], world: int = 1) -> None:
    run = start(folder, command, world=world, body=train_and_hash)
    assert run.wait() == [0] * world, run.error_output()


def exact(steps: list[dict[str, Any]], name: str) -> list[str]:
    return [row[name].hex() for row in steps]


def test_a_run_killed_within_a_step_resumes_with_the_same_samples_losses_and_weights(tmp_path: Path) -> None:
    """T1, T2 and T5 in their smallest form: one process, two epochs of two steps, killed in the second microbatch."""
    num_documents, rows = 4, 2
    dataset = make_small_dataset(tmp_path, num_documents)
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=rows, epochs=2)
    uninterrupted, run_dir = tmp_path / "uninterrupted", tmp_path / "killed" / "run"
    finish(uninterrupted, arguments(recipe, uninterrupted / "run"))
    command = arguments(recipe, run_dir, "train.save_every_steps=1")
    last_microbatch_of_step_3 = str(3 * rows)
    killed = start(
        tmp_path / "killed", command, body=killed_while_accumulating, KILL_IN_MICROBATCH=last_microbatch_of_step_3
    )
    assert killed.wait() == [-signal.SIGKILL], killed.error_output()
    finish(tmp_path / "resumed", command)
    assert "resumed from" in (tmp_path / "resumed" / "stderr_0").read_text()
    steps, reference = read_steps(run_dir), read_steps(uninterrupted / "run")
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all(row.keys() == LoggedStep.__annotations__.keys() for row in steps), "LoggedStep names every logged value"
    for epoch in (steps[:2], steps[2:]):
        documents = [number for row in epoch for number in from_ranges(row["documents"])]
        assert sorted(documents) == list(range(num_documents))
    for name in ("loss", "grad_norm"):
        assert exact(steps, name) == exact(reference, name)
    (one,), (other,) = hashes(uninterrupted / "run", 4, 1), hashes(run_dir, 4, 1)
    for name in ("weights", "optimizer", "optimizer steps"):
        assert one[name] == other[name], name
    assert one["masks"] == 4 * rows and one["changed masks"] == 0


def test_two_data_parallel_ranks_train_on_the_samples_of_one(dataset: Path, tmp_path: Path) -> None:
    """T3 in its smallest form; rank counts change between runs and within one run in the slow test below."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    steps = {}
    for world in (1, 2):
        folder = tmp_path / str(world)
        finish(folder, arguments(recipe, folder / "run", "train.max_steps=2"), world)
        steps[world] = read_steps(folder / "run")
        assert steps[world][-1]["layout"].endswith(f"DP{world}")
    assert [row["documents"] for row in steps[2]] == [row["documents"] for row in steps[1]]
    assert [row["loss"] for row in steps[2]] == pytest.approx([row["loss"] for row in steps[1]], rel=1e-6)


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of 20 uninterrupted steps in each layout."""
    folders = {}
    for name, (world, overrides) in LAYOUTS.items():
        folder = tmp_path_factory.mktemp("uninterrupted")
        recipe = write_recipe(folder / "recipe.toml", dataset, batch_rows=1, epochs=3)
        finish(folder, arguments(recipe, folder / "run", "train.max_steps=20", *overrides), world)
        folders[name] = folder / "run"
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_killed_after_10_steps_and_resumed_has_the_losses_and_weights_of_20_steps(
    layout: str, uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    """T1: losses are equal as float.hex, weights and optimizer state by SHA-256."""
    world, overrides = LAYOUTS[layout]
    recipe = uninterrupted[layout].parent / "recipe.toml"
    run_dir = tmp_path / "run"
    command = arguments(recipe, run_dir, "train.max_steps=20", "train.save_every_steps=10", *overrides)
    first = start(tmp_path / "first", command, world=world)
    steps = run_dir / STEPS_FILE
    first.wait_for(lambda: steps.is_file() and steps.read_text().count("\n") >= 11, "step 11")
    for rank in range(world):
        first.send(rank, signal.SIGKILL)
    assert first.wait() == [-signal.SIGKILL] * world
    finish(tmp_path / "second", command, world)
    assert "resumed from" in (tmp_path / "second" / "stderr_0").read_text()
    reference, actual = read_steps(uninterrupted[layout]), read_steps(run_dir)
    assert [row["step"] for row in actual] == list(range(1, 21))
    for name in ("loss", "grad_norm"):
        assert exact(actual, name) == exact(reference, name)
    first_losses = {row["documents"]: row["loss"] for row in reference[:NUM_DOCUMENTS]}
    for row in reference[NUM_DOCUMENTS:]:
        assert world > 1 or row["loss"] != first_losses[row["documents"]], "the weights must change"
    for one, other in zip(hashes(uninterrupted[layout], 20, world), hashes(run_dir, 20, world), strict=True):
        for name in ("weights", "optimizer", "optimizer steps"):
            assert one[name] == other[name], name


@pytest.mark.slow
def test_training_changes_neither_the_loss_masks_nor_the_dataset(tmp_path: Path) -> None:
    """T5: the hash of every mask after the run is its hash when it was read."""
    from acc_megatron.data_tools.convert.verify import verify

    dataset = make_one_row_documents(tmp_path / "documents", NUM_DOCUMENTS)
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=1, epochs=1)
    finish(tmp_path, arguments(recipe, tmp_path / "run"))
    (found,) = hashes(tmp_path / "run", NUM_DOCUMENTS, 1)
    assert found["masks"] == NUM_DOCUMENTS and found["changed masks"] == 0
    assert verify(dataset) == []


@pytest.mark.slow
def test_restarts_within_and_between_epochs_train_on_each_sample_once_per_epoch(dataset: Path, tmp_path: Path) -> None:
    """T2: restarts at half an epoch, at its end, and in the middle of gradient accumulation."""
    rows, epochs = 2, 2
    steps_per_epoch = NUM_DOCUMENTS // rows
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=rows, epochs=epochs)
    finish(tmp_path / "uninterrupted", arguments(recipe, tmp_path / "uninterrupted" / "run"))
    run_dir = tmp_path / "parts" / "run"
    for number, share in enumerate((0.5, 1.0, 1.5)):  # of an epoch
        finish(tmp_path / str(number), arguments(recipe, run_dir, f"train.max_steps={int(share * steps_per_epoch)}"))
    killed = start(
        tmp_path / "killed",
        arguments(recipe, run_dir),
        body=killed_while_accumulating,
        KILL_IN_MICROBATCH=str(2 * rows),  # the second row of the second step
    )
    assert killed.wait() == [-signal.SIGKILL]
    assert json.loads((run_dir / STEPS_FILE).read_text().splitlines()[-1])["step"] == 13, "killed within step 14"
    finish(tmp_path / "last", arguments(recipe, run_dir))
    steps = read_steps(run_dir)
    assert [row["step"] for row in steps] == list(range(1, epochs * steps_per_epoch + 1))
    for epoch in range(epochs):
        part = steps[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]
        assert sorted(number for row in part for number in from_ranges(row["documents"])) == list(range(NUM_DOCUMENTS))
        supervised = open_dataset(dataset).samples["supervised_tokens"].to_numpy().sum()
        assert sum(row["supervised_tokens"] for row in part) == supervised, "as the loss counted them"
    assert exact(steps, "loss") == exact(read_steps(tmp_path / "uninterrupted" / "run"), "loss")


@pytest.mark.slow
def test_the_number_of_ranks_changes_neither_the_samples_nor_the_losses(dataset: Path, tmp_path: Path) -> None:
    """T3: 1, 2 and 4 data-parallel ranks, and a run that changes from 1 to 2."""
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    steps = {}
    for world in (1, 2, 4):
        folder = tmp_path / str(world)
        finish(folder, arguments(recipe, folder / "run"), world)
        steps[world] = read_steps(folder / "run")
        assert steps[world][-1]["layout"].endswith(f"DP{world}")
    folder = tmp_path / "changed"
    finish(folder / "a", arguments(recipe, folder / "run", "train.max_steps=2"), 1)
    finish(folder / "b", arguments(recipe, folder / "run"), 2)
    for other in (steps[2], steps[4], read_steps(folder / "run")):
        assert [row["documents"] for row in other] == [row["documents"] for row in steps[1]]
        assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in steps[1]], rel=1e-6)
