"""Fixtures that all tests share. Tests over real trajectories are skipped if these are not available."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import make_inputs, run_processes
from support.commands import SHARED_DATA

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `data` if the real trajectories are not available."""
    absent = pytest.mark.skip(reason=f"{SHARED_DATA} does not exist")
    for item in items:
        if item.get_closest_marker("data") and not SHARED_DATA.is_dir():
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real trajectories."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with six documents of uneven length."""
    return make_inputs.make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def make_hf_folder() -> Callable[..., Path]:
    """Writes a random Hugging Face folder."""
    return make_inputs.make_hf_folder


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint imported from a random Hugging Face model, so that all layouts start from the same weights."""
    folder = tmp_path_factory.mktemp("imported")
    hf = make_inputs.make_hf_folder(folder / "hf")
    run_processes.import_hf_folder(hf, folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def recipe(dataset: Path, imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains `imported` on `dataset`."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    model = make_inputs.TINY_MODEL
    return make_inputs.write_recipe(path, model=model, dataset=dataset, checkpoint=imported, batch_rows=2, epochs=3)
