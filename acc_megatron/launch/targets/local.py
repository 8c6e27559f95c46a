"""Launching on this machine: the jobs run one after the other in the foreground."""

import sys
from dataclasses import replace
from pathlib import Path

from acc_megatron.errors import ConfigError, EnvironmentProblem, JobFailed
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.jobs import build_jobs
from acc_megatron.launch.launch_record import Launched
from acc_megatron.launch.targets.nemo import NemoExperiment, import_nemo_run, newest_log
from acc_megatron.launch.targets.target import Preview

SUCCEEDED = "SUCCEEDED"


class LocalTarget:
    """This machine, through nemo-run's local executor."""

    name = "local"
    summary = "Run the jobs on this machine, one after the other."
    settings = None

    def check(self, loaded: Loaded) -> None:
        """Training must fit on one node."""
        train = loaded.experiment.train
        if train is not None and "train" in loaded.jobs and train.nodes != 1:
            raise ConfigError(f"train.nodes = {train.nodes}, but this machine is one node: add train.nodes=1")

    def dry_run(self, loaded: Loaded) -> Preview:
        """The command of each job."""
        return Preview("commands", {job.name: job.command for job in build_jobs(loaded, one_machine=True)})

    def submit(self, loaded: Loaded, record: Launched) -> None:
        """Run the jobs to their end; raises JobFailed."""
        run = import_nemo_run(loaded.folder)
        workdir = str(Path(loaded.experiment.workdir).absolute())
        for job in build_jobs(loaded, one_machine=True):
            print(f"{job.name}: running", file=sys.stderr, flush=True)
            independent = replace(job, needs=())  # the jobs that it needs have ended
            task = NemoExperiment(
                run, loaded.experiment.name, [independent],
                lambda _: run.LocalExecutor(env_vars=job_environment(loaded.experiment)), workdir=workdir,
            )  # fmt: skip
            record.add(task.submit(detach=False))
            record.save(loaded.folder)
            if record.states[job.name] != SUCCEEDED:
                raise JobFailed(f"{job.name} ended as {record.states[job.name]}: see {record.logs[job.name]}")

    def states(self, loaded: Loaded, record: Launched) -> dict[str, str]:
        """The states in which the jobs ended."""
        return record.states

    def log(self, loaded: Loaded, record: Launched, job: str) -> str:
        """The output of a job."""
        return newest_log(record, job, "nemo_run/*/*/0/combined.log")

    def cancel(self, loaded: Loaded, record: Launched) -> None:
        """Always raises EnvironmentProblem: the jobs belong to another terminal."""
        raise EnvironmentProblem("a local launch runs in the foreground: interrupt it in its terminal (Ctrl-C)")
