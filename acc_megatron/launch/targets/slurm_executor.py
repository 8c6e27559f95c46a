"""A job as a SLURM batch script: nemo-run's executor, and the bash around srun that handles signals and retries."""

import shlex
from pathlib import Path
from typing import Any

from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Experiment
from acc_megatron.launch.jobs import Job
from acc_megatron.launch.targets.slurm_settings import SlurmSettings

# This function replaces srun, because bash runs no trap while it waits for a program in the foreground. The warning
# before the time limit is forwarded to every node; the nodes save and exit with 75, and the job is requeued. When SLURM
# ends a job for another reason (cancelled, preempted, node lost), SLURM itself decides about a requeue (--requeue):
# 'scontrol requeue' would undo even a scancel. Other failures are counted in a file: only they use up the retries.
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
    """The lines before a training job's srun; `failures` is a file that all starts of the job see."""
    return SUPERVISE.replace("@FAILURES@", failures).replace("@RETRIES@", str(retries))


def make_executor(run: Any, experiment: Experiment, job: Job, folder: Path) -> Any:
    """nemo-run's executor of one job; `run` is the module nemo_run, `folder` the launch folder."""
    settings = experiment.settings(SlurmSettings)
    variables = {key: shlex.quote(value) for key, value in job_environment(experiment).items()}
    special: dict[str, Any] = {}
    if job.kind == "train" and experiment.train is not None:
        special = {
            "signal": f"B:USR1@{experiment.train.grace_seconds}",
            "exclusive": settings.exclusive or None,
            "retries": settings.retries,
            "setup_lines": supervise(shlex.quote(f"{folder}/failures_") + '"$SLURM_JOB_ID"', settings.retries),
            # a node that has saved ends a moment before the others: --wait=60 gives them time, a kill would not
            "srun_args": ["--kill-on-bad-exit=0"],
        }
    return run.SlurmExecutor(
        account=settings.account,
        partition=settings.partition if job.is_large else settings.cpu_partition or settings.partition,
        job_name_prefix=f"{experiment.name}.",
        time=settings.time if job.is_large else settings.cpu_time,
        nodes=job.nodes,
        ntasks_per_node=1,
        cpus_per_task=settings.cpus_per_task,
        gpus_per_node=job.gpus_per_node or None,
        mem=settings.memory if job.is_large else settings.cpu_memory,
        qos=settings.qos,
        constraint=settings.constraint,
        exclude=settings.exclude,
        array=f"0-{job.array - 1}" if job.array > 1 else None,
        container_image=job.image or settings.container_image,
        container_mounts=list(settings.container_mounts),
        # SLURM cancels a job whose dependency failed; by default the job would stay in the queue
        additional_parameters=({"kill_on_invalid_dep": "yes"} if job.needs else {}) | settings.extra or None,
        env_vars=variables,
        tunnel=run.LocalTunnel(job_dir=""),
        packager=run.Packager(),
        poll_estimated_start_time=False,
        **special,
    )
