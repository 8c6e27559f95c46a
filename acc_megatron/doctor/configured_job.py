"""Checks of a configured job: its layout, its dataset and its initial weights."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from acc_megatron.checkpoint.locate import find
from acc_megatron.compatibility import check_job
from acc_megatron.config import Config
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.doctor.finding import Finding
from acc_megatron.errors import AccError
from acc_megatron.mesh.layout import smallest_world


def check_configured(config: Config, gpus: int | None) -> Iterator[Finding]:
    """One finding each for layout, dataset and initial weights.

    `gpus` is the number of ranks; None: as torchrun sets it, otherwise the smallest that the layout allows.
    """
    ranks = gpus or int(os.environ.get("WORLD_SIZE", 0)) or smallest_world(config.parallel)
    yield _try(f"layout on {ranks} ranks", lambda: str(check_job(config, ranks)), "the job would not start")
    yield _try("dataset", lambda: _dataset(Path(config.data.path)), "there is nothing to train on")
    if config.train.init_from is not None:
        path = Path(config.train.init_from)
        yield _try("initial weights", lambda: str(find(path)), "the run has no weights to start from")


def _try(name: str, look: Callable[[], str], effect: str) -> Finding:
    try:
        return Finding(name=name, state="ok", found=look(), needed=True)
    except AccError as error:
        return Finding(name=name, state="wrong", found=str(error), effect=effect, needed=True)


def _dataset(path: Path) -> str:
    dataset = open_dataset(path)
    manifest = dataset.manifest
    return f"{manifest['documents_out']:,} documents, {manifest['tokens']:,} tokens in {path}"
