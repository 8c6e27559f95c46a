"""What pytest itself needs: where real data may be absent, and small real inputs made once a session."""

import os
from collections.abc import Callable
from pathlib import Path

import make_inputs
import pytest
from commands import SHARED_DATA, acc, good

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests over real trajectories are skipped where these are absent."""
    absent = pytest.mark.skip(reason=f"{SHARED_DATA} is absent")
    for item in items:
        if item.get_closest_marker("data") and not SHARED_DATA.is_dir():
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real trajectories."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six documents of uneven length in a dataset folder."""
    return make_inputs.make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def make_hf_folder() -> Callable[..., Path]:
    """Writes a random Hugging Face folder."""
    return make_inputs.make_hf_folder


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint imported from a random Hugging Face model: the same initial weights for every layout."""
    folder = tmp_path_factory.mktemp("imported")
    hf = make_inputs.make_hf_folder(folder / "hf")
    good(acc("import", hf, "--out", folder / "checkpoint", "--precision", "float32", "--json"))
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def recipe(dataset: Path, imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over `dataset` from `imported`."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    model = make_inputs.TINY_MODEL
    return make_inputs.write_recipe(path, model=model, dataset=dataset, checkpoint=imported, batch_rows=2, epochs=3)
