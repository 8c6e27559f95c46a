"""After a launch: the state of each stage, its logs, and how to end it."""

import os
from pathlib import Path

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.launch import kubernetes_client, slurm
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.record import Launched, read_record


def states(loaded: Loaded) -> dict[str, str]:
    """The state of every launched stage, in the cluster's own words."""
    record = read_record(loaded.folder)
    if record.target == "slurm":
        return {stage: slurm.status(job) for stage, job in record.jobs.items()}
    if record.target == "kubernetes":
        cluster = kubernetes_client.connect(loaded.experiment.kubernetes)
        return {stage: cluster.state(name) for stage, name in record.jobs.items()}
    return record.states


def log_text(loaded: Loaded, stage: str, rank: int | None) -> str:
    """The last start's log of a stage; with `rank` that of one training process. Raises EnvironmentProblem."""
    record = read_record(loaded.folder)
    if stage not in record.jobs:
        raise EnvironmentProblem(f"no stage {stage!r} was launched; there are {', '.join(record.jobs)}")
    if rank is not None:
        return _rank_log(loaded, rank)
    if record.target == "kubernetes":
        return kubernetes_client.connect(loaded.experiment.kubernetes).logs(record.jobs[stage])
    return _newest_log(record, stage)


def _rank_log(loaded: Loaded, rank: int) -> str:
    folder = Path(loaded.experiment.workdir) / loaded.experiment.out / "logs"
    found = sorted(folder.glob(f"*/rank_{rank:05d}.err"), key=os.path.getmtime)
    if not found:
        raise EnvironmentProblem(f"no log of rank {rank} in {folder}/*: this machine must see the job's folder")
    return found[-1].read_text(encoding="utf-8", errors="replace")


def _newest_log(record: Launched, stage: str) -> str:
    folder = Path(record.logs[stage])
    pattern = "log-*.out" if record.target == "slurm" else "nemo_run/*/*/0/combined.log"
    found = sorted(folder.glob(pattern), key=os.path.getmtime) or sorted(folder.glob("sbatch_*.out"))
    if not found:
        raise EnvironmentProblem(f"{stage} has no log yet in {folder}: 'launch status' says whether it started")
    return found[-1].read_text(encoding="utf-8", errors="replace")


def cancel(loaded: Loaded) -> list[str]:
    """End every stage that has not ended; returns the names of their jobs. Raises EnvironmentProblem."""
    record = read_record(loaded.folder)
    if record.target == "slurm":
        slurm.cancel(list(record.jobs.values()))
    elif record.target == "kubernetes":
        cluster = kubernetes_client.connect(loaded.experiment.kubernetes)
        for name in record.jobs.values():
            cluster.delete(name)
    else:
        raise EnvironmentProblem("a local launch runs in the foreground: interrupt it there (Ctrl-C)")
    return list(record.jobs.values())
