"""SLURM: settings as nemo-run's executor, the batch script's signals, and what the cluster must confirm first."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Experiment
from acc_megatron.launch.stages import Stage

# A function in front of srun, since bash runs no trap while it waits for a program in the foreground. The warning
# before the time limit goes on to every node; these save and end with 75, and the job starts again. What SLURM ends for
# another reason (cancelled, preempted, a node lost) is its own business (--requeue): 'scontrol requeue' would undo even
# a scancel. Other failures are counted in a file: only they use up the retries.
SUPERVISE = """\
export PET_NNODES=$SLURM_JOB_NUM_NODES PET_MASTER_ADDR=${head_node_ip%% *}
export PET_MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
warned=0
trap 'warned=1; kill -USR1 "$child"' USR1
trap : TERM
srun() {
    command srun "$@" &
    child=$!
    wait "$child"; code=$?
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
    [ "$code" -eq 0 ] && return 0
    TORCHX_MAX_RETRIES=0
    case $(squeue -h -j "$SLURM_JOB_ID" -o "%T %r") in ''|RUNNING*|*TimeLimit) ;; *) return "$code" ;; esac
    if [ "$code" -ne 75 ]; then
        echo failed >> @FAILURES@
        [ "$(wc -l < @FAILURES@)" -le @RETRIES@ ] && TORCHX_MAX_RETRIES=1000000
    elif [ "$warned" -eq 1 ]; then
        scontrol requeue "$SLURM_JOB_ID" && sleep 600
    fi
    return "$code"
}"""


def supervise(failures: str, retries: int) -> str:
    """The lines before a training job's srun; `failures` is a file that all starts of a job see."""
    return SUPERVISE.replace("@FAILURES@", failures).replace("@RETRIES@", str(retries))


def executor(run: Any, experiment: Experiment, stage: Stage, folder: Path) -> Any:
    """nemo-run's executor of one stage; `run` is the module nemo_run."""
    settings = experiment.slurm
    is_train = stage.kind == "train"
    variables = {key: shlex.quote(value) for key, value in job_environment(experiment).items()}
    special: dict[str, Any] = {}
    if is_train and experiment.train is not None:
        special = {
            "signal": f"B:USR1@{experiment.train.grace_seconds}",
            "exclusive": settings.exclusive or None,
            "retries": settings.retries,
            "setup_lines": supervise(shlex.quote(f"{folder}/failures_") + '"$SLURM_JOB_ID"', settings.retries),
            # a node that has saved ends a moment before the others: they are given --wait=60, not killed at once
            "srun_args": ["--kill-on-bad-exit=0"],
        }
    return run.SlurmExecutor(
        account=settings.account,
        partition=settings.partition if stage.is_large else settings.cpu_partition or settings.partition,
        job_name_prefix=f"{experiment.name}.",
        time=settings.time if stage.is_large else settings.cpu_time,
        nodes=stage.nodes,
        ntasks_per_node=1,
        cpus_per_task=settings.cpus_per_task,
        gpus_per_node=stage.gpus_per_node or None,
        mem=settings.memory if stage.is_large else settings.cpu_memory,
        qos=settings.qos,
        constraint=settings.constraint,
        exclude=settings.exclude,
        array=f"0-{stage.array - 1}" if stage.array > 1 else None,
        container_image=stage.image or settings.container_image,
        container_mounts=list(settings.container_mounts),
        # a stage whose predecessor failed is cancelled, not left waiting for ever
        additional_parameters=({"kill_on_invalid_dep": "yes"} if stage.needs else {}) | settings.extra or None,
        env_vars=variables,
        tunnel=run.LocalTunnel(job_dir=""),
        packager=run.Packager(),
        poll_estimated_start_time=False,
        **special,
    )


def check_settings(experiment: Experiment) -> None:
    """Refuse what can be seen without a cluster; raises ConfigError."""
    settings = experiment.slurm
    if not settings.account:
        raise ConfigError(
            "slurm.account is missing: the account that is charged (sacctmgr show assoc user=$USER lists)"
        )
    if not settings.partition:
        raise ConfigError("slurm.partition is missing: name one that 'sinfo -s' lists")
    images = {"slurm.container_image": settings.container_image}
    images["eval.image"] = experiment.eval.image if experiment.eval else None
    for key, image in images.items():
        if image and image.startswith(("/", ".")) and not Path(image).is_file():
            raise ConfigError(f"{key}: no file {image}: make it with 'enroot import', or name registry#image")
    if any(images.values()) and not settings.container_mounts:
        raise ConfigError("slurm.container_mounts is empty: a container sees no data; mount workdir at its own path")


def check_cluster(experiment: Experiment) -> None:
    """Ask the cluster whether partition and account exist; raises ConfigError or EnvironmentProblem."""
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("no sbatch here: launch on a login node of the cluster, or use --dry-run")
    settings = experiment.slurm
    partitions = {line.strip() for line in _ask("sinfo", "-h", "-o", "%R").splitlines()}
    for key, name in (("partition", settings.partition), ("cpu_partition", settings.cpu_partition)):
        if name is not None and name not in partitions:
            raise ConfigError(f"slurm.{key} = {name!r} does not exist; the cluster has {', '.join(sorted(partitions))}")
    accounts = {line.strip() for line in _ask("sacctmgr", "-nP", "show", "assoc", "format=account").splitlines()}
    if accounts and settings.account not in accounts:
        known = ", ".join(sorted(accounts))
        raise ConfigError(f"slurm.account = {settings.account!r} does not exist; the cluster has {known}")


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"{command[0]} gave no answer: {error}") from None
    if done.returncode:
        raise EnvironmentProblem(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def status(job: str) -> str:
    """One job's state; of an array the number of tasks in each, as 'COMPLETED 62, RUNNING 2'."""
    rows = _ask("sacct", "-nPX", "-j", job, "-o", "State").splitlines()
    states = [row.split()[0] for row in rows if row.strip()]
    if not states:
        return "UNKNOWN"
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{state} {states.count(state)}" for state in sorted(set(states)))


def cancel(jobs: list[str]) -> None:
    """End jobs that wait or run; those that have ended are left alone."""
    _ask("scancel", *jobs)
