"""The pipeline as your own nemo-run experiment: edit the executors, then run `python with_nemo_run.py`.

`--dry-run` writes the batch scripts and prints their paths. This file needs only nemo-run (make .venv-launch); the jobs
need an environment or a container with acc-megatron. `acc-megatron launch slurm` does the same from a TOML file and
also saves before the time limit, which this shorter file does not.
"""

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--home", type=Path, default=Path("runs/launch/nemo"), help="folder for the files of nemo-run")
parser.add_argument("--account", default="team")
parser.add_argument("--partition", default="h100")
parser.add_argument("--container", help="a .sqsh file or registry#image, for pyxis")
parser.add_argument("--out", default="runs/acc-30b", help="folder on a filesystem that all nodes share")
parser.add_argument("--recipe", default="examples/qwen3_30b_a3b_128k_h100.toml")
parser.add_argument("--nodes", type=int, default=8)
parser.add_argument("--dry-run", action="store_true")
options = parser.parse_args()

os.environ["NEMORUN_HOME"] = str(options.home.resolve())  # read when nemo_run is imported
import nemo_run as run  # noqa: E402

HERE, OUT = Path.cwd(), options.out


def executor(**changes: object) -> "run.SlurmExecutor":
    """The executor of a CPU job; `changes` turn it into an array or a GPU job."""
    settings: dict[str, object] = {
        "account": options.account,  # nemo-run 0.11.1 fails without one
        "partition": options.partition,
        "time": "04:00:00",
        "container_image": options.container,
        "container_mounts": [f"{HERE}:{HERE}"] if options.container else [],
        "tunnel": run.LocalTunnel(job_dir=""),  # nemo-run leaves any other folder empty
        "packager": run.Packager(),
    }
    return run.SlurmExecutor(**(settings | changes))


def verb(*arguments: str) -> "run.Script":
    """An `acc-megatron` command, run in this folder."""
    return run.Script(entrypoint="env", path="-C", args=[str(HERE), "python", "-m", *arguments])


train = executor(
    nodes=options.nodes,
    ntasks_per_node=1,  # the node program starts torchrun
    gpus_per_node=8,
    exclusive=True,
    mem="0",
    retries=3,
    env_vars={
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "TRITON_CACHE_DIR": "/tmp/acc-30b-triton",  # on the node's own disk
        "NCCL_DEBUG": "WARN",
        "NCCL_IB_TIMEOUT": "22",
    },
    setup_lines=(
        "export PET_NNODES=$SLURM_JOB_NUM_NODES PET_MASTER_ADDR=${head_node_ip%% *}\n"
        "export PET_MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))"
    ),
)
node = ["acc_megatron.launch.node", "--processes", "8", "--gpus", "8", "--gpu-free-gib", "70"]
node += ["--ring-gb-per-second", "0", "--run-dir", f"{OUT}/run", "--logs", f"{OUT}/logs", "--", "train"]
node += [options.recipe, f"data.path={OUT}/dataset", f"train.run_dir={OUT}/run"]

jobs = [
    ("compile", verb("acc_megatron", "compile", "trajectories", "--out", f"{OUT}/triples"), executor()),
    (
        "convert",
        verb("acc_megatron", "convert", f"{OUT}/triples", "--out", f"{OUT}/dataset", "--shard", "64"),
        executor(array="0-63"),
    ),
    ("merge", verb("acc_megatron", "merge", f"{OUT}/dataset"), executor()),
    ("train", verb(*node), train),
    ("export", verb("acc_megatron", "export", f"{OUT}/run", "--out", f"{OUT}/export"), executor()),
    ("eval", verb("acc_megatron", "eval", f"{OUT}/export", "--out", f"{OUT}/eval"), executor(gpus_per_node=1)),
]

with run.Experiment("acc-30b", log_level="WARN") as experiment:
    before: list[str] = []
    for name, script, where in jobs:
        before = [experiment.add(script, executor=where, name=name, dependencies=before)]
    if options.dry_run:
        experiment.dryrun(log=False, delete_exp_dir=False)
    else:
        experiment.run(detach=True)
for path in sorted(options.home.glob(f"experiments/acc-30b/{experiment._id}/*_sbatch.sh")):
    print(path)
