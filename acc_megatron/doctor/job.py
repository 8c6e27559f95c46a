"""A configured job: its layout, its data and its initial weights, before anything is started."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from acc_megatron.checkpoint.locate import find
from acc_megatron.compatibility import check_job
from acc_megatron.config import Config
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.doctor.finding import Finding
from acc_megatron.errors import AccError


def num_ranks(config: Config, gpus: int | None) -> int:
    """Ranks of the job: as given, as torchrun says, else the fewest that the layout needs."""
    parallel = config.parallel
    fewest = parallel.tensor * parallel.context * parallel.pipeline
    return gpus or int(os.environ.get("WORLD_SIZE", 0)) or max(fewest, parallel.expert * parallel.expert_tensor)


def check_configured(config: Config, gpus: int | None) -> Iterator[Finding]:
    """One finding each for the layout, the dataset and the initial weights of a job."""
    ranks = num_ranks(config, gpus)
    yield _try(f"layout on {ranks} ranks", lambda: str(check_job(config, ranks)), "the job would refuse to start")
    yield _try("dataset", lambda: _dataset(Path(config.data.path)), "nothing to train on")
    if config.train.init_from is not None:
        path = Path(config.train.init_from)
        yield _try("initial weights", lambda: str(find(path)), "the run would have nothing to start from")


def _try(name: str, look: Callable[[], str], effect: str) -> Finding:
    try:
        return Finding(name=name, state="ok", found=look(), needed=True)
    except AccError as error:
        return Finding(name=name, state="wrong", found=str(error), effect=effect, needed=True)


def _dataset(path: Path) -> str:
    dataset = open_dataset(path)
    manifest = dataset.manifest
    return f"{manifest['documents_out']:,} documents, {manifest['tokens']:,} tokens in {path}"
