"""What a restart must not change, with real processes that are really killed."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from make_inputs import make_one_row_documents
from run_processes import start
from survivors import arguments, killed_while_accumulating, train_and_hash, write_recipe

from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.observe.metrics import STEPS_FILE, read_steps
from acc_megatron.observe.usage import from_ranges

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
NUM_DOCUMENTS = 16
LAYOUTS = {
    "one process": (1, ()),
    "EP2 CP2": (2, ("parallel.expert=2", "parallel.context=2")),
    "DP2, distributed optimizer": (2, ("parallel.distributed_optimizer=true", "train.global_batch_rows=2")),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_one_row_documents(tmp_path_factory.mktemp("documents"), NUM_DOCUMENTS)


def hashes(run_dir: Path, step: int, world: int) -> list[dict[str, Any]]:
    return [json.loads((run_dir / f"hashes_{step}_{rank}.json").read_text()) for rank in range(world)]


def finish(folder: Path, command: list[str], world: int = 1) -> None:
    run = start(folder, command, world=world, body=train_and_hash)
    assert run.wait() == [0] * world, run.error_output()


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of 20 uninterrupted steps in each layout."""
    folders = {}
    for name, (world, overrides) in LAYOUTS.items():
        folder = tmp_path_factory.mktemp("whole")
        recipe = write_recipe(folder / "recipe.toml", dataset, batch_rows=1, epochs=3)
        finish(folder, arguments(recipe, folder / "run", "train.max_steps=20", *overrides), world)
        folders[name] = folder / "run"
    return folders


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_restart_changes_nothing(layout: str, whole: dict[str, Path], tmp_path: Path) -> None:
    world, overrides = LAYOUTS[layout]
    recipe = whole[layout].parent / "recipe.toml"
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
    reference, actual = read_steps(whole[layout]), read_steps(run_dir)
    assert [row["step"] for row in actual] == list(range(1, 21))
    for key in ("loss", "grad_norm"):
        assert [row[key].hex() for row in actual] == [row[key].hex() for row in reference]
    assert reference[0]["loss"] - reference[-1]["loss"] > 1, "the weights must move"
    for one, other in zip(hashes(whole[layout], 20, world), hashes(run_dir, 20, world), strict=True):
        for name in ("weights", "optimizer", "optimizer steps"):
            assert one[name] == other[name], name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mask_is_never_mutated(layout: str, whole: dict[str, Path], dataset: Path) -> None:
    for found in hashes(whole[layout], 20, LAYOUTS[layout][0]):
        assert found["masks"] >= 20 and found["changed masks"] == 0
    from acc_megatron.data_tools.verify import verify

    assert verify(dataset) == [], "nor are the files it comes from"


def test_a_restart_at_awkward_times_takes_each_sample_exactly_once_an_epoch(dataset: Path, tmp_path: Path) -> None:
    rows, epochs = 2, 2
    per_epoch = NUM_DOCUMENTS // rows
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=rows, epochs=epochs)
    finish(tmp_path / "whole", arguments(recipe, tmp_path / "whole" / "run"))
    run_dir = tmp_path / "parts" / "run"
    for number, share in enumerate((0.5, 1.0, 1.5)):  # of an epoch
        finish(tmp_path / str(number), arguments(recipe, run_dir, f"train.max_steps={int(share * per_epoch)}"))
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
    assert [row["step"] for row in steps] == list(range(1, epochs * per_epoch + 1))
    for epoch in range(epochs):
        part = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(number for row in part for number in from_ranges(row["documents"])) == list(range(NUM_DOCUMENTS))
        supervised = open_dataset(dataset).manifest["supervised_tokens"]
        assert sum(row["supervised_tokens"] for row in part) == supervised, "as the loss counted them"
    reference = read_steps(tmp_path / "whole" / "run")
    assert [row["loss"].hex() for row in steps] == [row["loss"].hex() for row in reference]


def test_another_gpu_count_is_the_same_run(dataset: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", dataset, batch_rows=4, epochs=1)
    steps = {}
    for world in (1, 2, 4):
        folder = tmp_path / str(world)
        finish(folder, arguments(recipe, folder / "run"), world)
        steps[world] = read_steps(folder / "run")
        assert steps[world][-1]["layout"].endswith(f"DP{world}")
    for world in (2, 4):
        assert [row["documents"] for row in steps[world]] == [row["documents"] for row in steps[1]]
        assert [row["loss"] for row in steps[world]] == pytest.approx([row["loss"] for row in steps[1]], rel=1e-6)
    # and a run may change the number in the middle
    folder = tmp_path / "moved"
    finish(folder / "a", arguments(recipe, folder / "run", "train.max_steps=2"), 1)
    finish(folder / "b", arguments(recipe, folder / "run"), 2)
    moved = read_steps(folder / "run")
    assert [row["documents"] for row in moved] == [row["documents"] for row in steps[1]]
    assert [row["loss"] for row in moved] == pytest.approx([row["loss"] for row in steps[1]], rel=1e-6)
