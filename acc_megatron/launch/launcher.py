"""Launch an experiment on a target, show its status and logs, cancel it; what differs by target is in `targets/`."""

import os
from pathlib import Path
from typing import Any

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.launch_record import Launched, read_record
from acc_megatron.launch.targets.registry import TARGETS
from acc_megatron.launch.targets.target import Target


def launch(target: Target, loaded: Loaded, *, dry_run: bool) -> dict[str, Any]:
    """Check the settings, then submit the jobs or write what would be submitted; raises ConfigError or JobFailed."""
    target.check(loaded)
    if dry_run:
        preview = target.dry_run(loaded)
        return {preview.what: preview.jobs}
    record = Launched(target=target.name)
    target.submit(loaded, record)
    found = {"jobs": record.jobs, "states": record.states, "scripts": record.scripts}
    return {key: value for key, value in found.items() if value} | {"record": str(loaded.folder)}


def states(loaded: Loaded) -> dict[str, str]:
    """The state of every launched job, in the words of its scheduler."""
    record = read_record(loaded.folder)
    return TARGETS[record.target].states(loaded, record)


def log_text(loaded: Loaded, job: str, rank: int | None) -> str:
    """The log of a job's last start, or of one training process with `rank`; raises EnvironmentProblem."""
    record = read_record(loaded.folder)
    if job not in record.jobs:
        raise EnvironmentProblem(f"no job {job!r} was launched; launched jobs: {', '.join(record.jobs)}")
    if rank is not None:
        return _rank_log(loaded, rank)
    return TARGETS[record.target].log(loaded, record, job)


def cancel(loaded: Loaded) -> list[str]:
    """End every job that is still waiting or running; returns the ids of all jobs. Raises EnvironmentProblem."""
    record = read_record(loaded.folder)
    TARGETS[record.target].cancel(loaded, record)
    return list(record.jobs.values())


def _rank_log(loaded: Loaded, rank: int) -> str:
    folder = Path(loaded.experiment.workdir) / loaded.experiment.out / "logs"
    found = sorted(folder.glob(f"*/rank_{rank:05d}.err"), key=os.path.getmtime)
    if not found:
        raise EnvironmentProblem(
            f"no log of rank {rank} in {folder}/*: run this on a machine that sees the folder of the job"
        )
    return found[-1].read_text(encoding="utf-8", errors="replace")
