"""Reads an experiment file and checks its jobs and its layout."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from acc_megatron.compatibility import check_job
from acc_megatron.config import Config, from_dict, load_config, read_tree
from acc_megatron.errors import ConfigError
from acc_megatron.launch.experiment import JOBS, Experiment, Loaded, TrainSection
from acc_megatron.launch.targets.registry import TARGETS


def experiment_file_type() -> type[Experiment]:
    """`Experiment` with one more section per launch target that has settings."""
    sections = [
        (name, target.settings, dataclasses.field(default_factory=target.settings))
        for name, target in TARGETS.items()
        if target.settings is not None
    ]
    return dataclasses.make_dataclass("ExperimentFile", sections, bases=(Experiment,), frozen=True, kw_only=True)


def load_experiment(path: Path, overrides: Sequence[str] = (), jobs: str | None = None) -> Loaded:
    """Read an experiment file; `jobs` is a comma-separated subset of its jobs. Raises ConfigError."""
    experiment = from_dict(experiment_file_type(), read_tree(path, overrides), str(path))
    if not experiment.name.replace("-", "").isalnum() or not experiment.name.islower():
        raise ConfigError(
            f"{path}: name = {experiment.name!r} must consist of lowercase letters, digits and '-', because it is part "
            "of job names"
        )
    chosen = _choose(experiment, jobs, path)
    recipe = config = None
    if experiment.train is not None and "train" in chosen:
        recipe = path.parent / experiment.train.recipe
        config = _check_train(experiment.train, recipe, path)
    if experiment.convert is not None and experiment.convert.shards < 1:
        raise ConfigError(f"{path}: convert.shards = {experiment.convert.shards} must be at least 1")
    return Loaded(experiment, path, recipe, config, chosen)


def _choose(experiment: Experiment, jobs: str | None, path: Path) -> tuple[str, ...]:
    present = [name for name in JOBS if getattr(experiment, name) is not None]
    asked = [name.strip() for name in jobs.split(",")] if jobs is not None else present
    for name in asked:
        if name not in JOBS:
            raise ConfigError(f"--jobs: unknown job {name!r}; known jobs: {', '.join(JOBS)}")
        if name not in present:
            raise ConfigError(f"--jobs: {path} has no section [{name}]")
    if not asked:
        raise ConfigError(f"{path} describes no job: add at least one section of {', '.join(JOBS)}")
    return tuple(name for name in JOBS if name in asked)


def _check_train(train: TrainSection, recipe: Path, path: Path) -> Config:
    if train.nodes < 1 or train.processes_per_node < 1:
        raise ConfigError(
            f"{path}: train.nodes = {train.nodes} and train.processes_per_node = {train.processes_per_node} must be at "
            "least 1"
        )
    config = load_config(recipe, train.overrides)
    world = train.nodes * train.processes_per_node
    try:
        check_job(config, world, has_gpu=train.device == "gpu")
    except ConfigError as error:
        ranks = f"train.nodes {train.nodes} x train.processes_per_node {train.processes_per_node} = {world} ranks"
        raise ConfigError(f"{path}: {ranks} cannot run {recipe}: {error}") from None
    return config
