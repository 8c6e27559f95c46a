"""Launching: every check first, then either the files that would be submitted, or the submission."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from acc_megatron.errors import AccError, ConfigError
from acc_megatron.launch import slurm
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.nemo import NemoExperiment, import_nemo_run
from acc_megatron.launch.record import Launched
from acc_megatron.launch.stages import build_stages

ENDED_WELL = "SUCCEEDED"


class StageFailed(AccError):
    """A stage ended with an error, so the ones after it were not started."""

    exit_code = 1


def launch_local(loaded: Loaded, *, dry_run: bool) -> dict[str, Any]:
    """Run the stages on this machine one after the other; raises StageFailed."""
    if loaded.experiment.train is not None and "train" in loaded.stages and loaded.experiment.train.nodes != 1:
        raise ConfigError(f"train.nodes = {loaded.experiment.train.nodes}: this machine is one; add train.nodes=1")
    stages, workdir = build_stages(loaded, one_machine=True), str(Path(loaded.experiment.workdir).absolute())
    if dry_run:
        return {"commands": {stage.name: stage.command for stage in stages}}
    run = import_nemo_run(loaded.folder)
    record = Launched(target="local")
    for stage in stages:
        print(f"{stage.name}: running", file=sys.stderr, flush=True)
        alone = replace(stage, needs=())  # what it needs has ended by now
        task = NemoExperiment(
            run, loaded.experiment.name, [alone],
            lambda _: run.LocalExecutor(env_vars=job_environment(loaded.experiment)), workdir=workdir,
        )  # fmt: skip
        record.add(task.submit(detach=False))
        record.save(loaded.folder)
        if record.states[stage.name] != ENDED_WELL:
            raise StageFailed(f"{stage.name} ended as {record.states[stage.name]}: see {record.logs[stage.name]}")
    return {"states": record.states, "record": str(loaded.folder)}


def launch_slurm(loaded: Loaded, *, dry_run: bool) -> dict[str, Any]:
    """Submit the stages as jobs that depend on one another, or write their batch scripts."""
    experiment = loaded.experiment
    slurm.check_settings(experiment)
    if not dry_run:
        slurm.check_cluster(experiment)
    run = import_nemo_run(loaded.folder)
    workdir = str(Path(experiment.workdir).absolute())
    task = NemoExperiment(
        run, experiment.name, build_stages(loaded),
        lambda stage: slurm.executor(run, experiment, stage, loaded.folder), workdir=workdir,
    )  # fmt: skip
    if dry_run:
        return {"scripts": {name: str(path) for name, path in task.dry_run().items()}}
    record = Launched(target="slurm")
    record.add(task.submit(detach=True))
    record.save(loaded.folder)
    return {"jobs": record.jobs, "scripts": record.scripts, "record": str(loaded.folder)}
