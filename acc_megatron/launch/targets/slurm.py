"""Launching on SLURM: jobs that depend on one another, submitted through nemo-run from a login node."""

import re
import shutil
import subprocess
from pathlib import Path

from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.launch.experiment import Experiment, Loaded
from acc_megatron.launch.jobs import build_jobs
from acc_megatron.launch.launch_record import Launched
from acc_megatron.launch.targets.nemo import NemoExperiment, import_nemo_run, newest_log
from acc_megatron.launch.targets.slurm_executor import make_executor
from acc_megatron.launch.targets.slurm_settings import SlurmSettings
from acc_megatron.launch.targets.target import Preview

# minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]]
TIME_LIMIT = re.compile(r"\d+(:\d\d?){0,2}|\d+-\d+(:\d\d?){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)


class SlurmTarget:
    """The SLURM cluster of this login node."""

    name = "slurm"
    summary = "Submit the jobs to SLURM; each waits for the one before."
    settings = SlurmSettings

    def check(self, loaded: Loaded) -> None:
        """Account, partition and container must be set, and image files must exist."""
        experiment, settings = loaded.experiment, loaded.experiment.settings(SlurmSettings)
        if not settings.account:
            raise ConfigError(
                "slurm.account is missing: set the account to charge; 'sacctmgr show assoc user=$USER' lists yours"
            )
        if not settings.partition:
            raise ConfigError("slurm.partition is missing: set one that 'sinfo -s' lists")
        for key in ("time", "cpu_time"):
            if not TIME_LIMIT.fullmatch(getattr(settings, key)):
                raise ConfigError(
                    f"slurm.{key} = {getattr(settings, key)!r} is not a time of SLURM: write hours:minutes:seconds, "
                    "such as 08:00:00, or days-hours, such as 1-12"
                )
        images = {"slurm.container_image": settings.container_image}
        images["eval.image"] = experiment.eval.image if experiment.eval else None
        for key, image in images.items():
            if image and image.startswith(("/", ".")) and not Path(image).is_file():
                raise ConfigError(f"{key}: no file {image}: create it with 'enroot import', or give registry#image")
        if any(images.values()) and not settings.container_mounts:
            raise ConfigError(
                "slurm.container_mounts is empty, so the container would see no data: mount workdir at its own path"
            )

    def dry_run(self, loaded: Loaded) -> Preview:
        """Write the batch scripts."""
        return Preview("scripts", _task(loaded).dry_run())

    def submit(self, loaded: Loaded, record: Launched) -> None:
        """Submit all jobs and return."""
        check_cluster(loaded.experiment)
        record.add(_task(loaded).submit(detach=True))
        record.save(loaded.folder)

    def states(self, loaded: Loaded, record: Launched) -> dict[str, str]:
        """The states that accounting reports."""
        return {name: state(job) for name, job in record.jobs.items()}

    def log(self, loaded: Loaded, record: Launched, job: str) -> str:
        """The output of the job's srun, or of its batch script before srun has started."""
        return newest_log(record, job, "log-*.out", "sbatch_*.out")

    def cancel(self, loaded: Loaded, record: Launched) -> None:
        """Cancel the jobs; SLURM ignores those that have ended."""
        _ask("scancel", *record.jobs.values())


def _task(loaded: Loaded) -> NemoExperiment:
    run, experiment = import_nemo_run(loaded.folder), loaded.experiment
    return NemoExperiment(
        run,
        experiment.name,
        build_jobs(loaded),
        lambda job: make_executor(run, experiment, job, loaded.folder),
        workdir=str(Path(experiment.workdir).absolute()),
    )


def check_cluster(experiment: Experiment) -> None:
    """Ask the cluster whether partition and account exist; raises ConfigError or EnvironmentProblem."""
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("no sbatch on PATH: launch on a login node of the cluster, or use --dry-run")
    settings = experiment.settings(SlurmSettings)
    partitions = {line.strip() for line in _ask("sinfo", "-h", "-o", "%R").splitlines()}
    for key, name in (("partition", settings.partition), ("cpu_partition", settings.cpu_partition)):
        if name is not None and name not in partitions:
            raise ConfigError(f"slurm.{key} = {name!r} does not exist; the cluster has {', '.join(sorted(partitions))}")
    accounts = {line.strip() for line in _ask("sacctmgr", "-nP", "show", "assoc", "format=account").splitlines()}
    if accounts and settings.account not in accounts:
        known = ", ".join(sorted(accounts))
        raise ConfigError(f"slurm.account = {settings.account!r} does not exist; the cluster has {known}")


def state(job: str) -> str:
    """One job's state; for an array the number of tasks in each state, for example 'COMPLETED 62, RUNNING 2'."""
    rows = _ask("sacct", "-nPX", "-j", job, "-o", "State").splitlines()
    states = [row.split()[0] for row in rows if row.strip()]
    if not states:
        return "UNKNOWN"
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{state} {states.count(state)}" for state in sorted(set(states)))


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"{command[0]} gave no answer: {error}") from None
    if done.returncode:
        raise EnvironmentProblem(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
