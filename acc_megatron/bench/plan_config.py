"""The settings and the dataset of a case of `bench plan`."""

from pathlib import Path

from acc_megatron.bench.plan_cases import RECIPE, SUPERVISED_SHARE, Case
from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.config import Config, load_config

NUM_ROWS = 8


def write_inputs(folder: Path, cases: list[Case]) -> None:
    """Write the recipe and a dataset for each list of document lengths into `folder`."""
    (folder / "recipe.toml").write_text(RECIPE)
    vocab_size = load_config(folder / "recipe.toml").model.vocab_size
    for lengths in {case.documents_tokens for case in cases}:
        write_dataset(
            folder / _dataset(lengths), list(lengths) * NUM_ROWS, vocab_size, supervised_share=SUPERVISED_SHARE
        )


def case_config(case: Case, folder: Path) -> Config:
    """The settings of a case whose inputs are in `folder`."""
    paths = [f"data.path={folder / _dataset(case.documents_tokens)}", f"train.run_dir={folder / 'run'}"]
    return load_config(folder / "recipe.toml", [*paths, *case.overrides])


def _dataset(lengths: tuple[int, ...]) -> str:
    return f"dataset_of_{len(lengths)}"
