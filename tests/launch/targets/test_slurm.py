"""A real SLURM of two virtual nodes runs, warns, loses and restarts a training job that nemo-run launched."""

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import make_inputs, run_processes
from support.commands import ROOT, run_command
from support.slurm_cluster import SlurmCluster, launch, need_slurm, read_json

from acc_megatron.observe.metrics import read_steps

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.distributed]
STEPS = 60  # enough for a job to be running when the test disturbs it
PATIENCE_SECONDS = 900  # for a busy machine; an idle one needs seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    need_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: it holds sockets, whose paths have 108 characters at most
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Job:
    """A two-node training experiment of its own folder."""

    def __init__(self, cluster: SlurmCluster, recipe: Path, dataset: Path, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        folder.mkdir()
        text = recipe.read_text() + "save_every_steps = 5\n"
        (folder / "recipe.toml").write_text(text.replace("epochs = 3", f"epochs = {STEPS * 2 // 3}"))
        (folder / "experiment.toml").write_text(f"""
name = "{folder.name}"
out = "out"
workdir = "{folder}"
launch_dir = "{folder}/launch"
python = "{sys.executable}"
[train]
recipe = "recipe.toml"
dataset = "{dataset}"
overrides = ["parallel.expert=2"]
nodes = 2
processes_per_node = 1
device = "cpu"
grace_seconds = 60
[export]
[environment]
OMP_NUM_THREADS = "1"
GLOO_SOCKET_IFNAME = "lo"
[slurm]
account = "acct"
partition = "debug"
memory = "100"
time = "00:10:00"
""")

    def launch(self, *options: str) -> dict[str, str]:
        file = self.folder / "experiment.toml"
        jobs = read_json(launch("slurm", file, "--json", *options, **self.cluster.environment))["jobs"]
        self.job = jobs["train"]
        return jobs

    def tell(self, verb: str, *options: str) -> str:
        done = launch(verb, self.folder / "experiment.toml", *options, **self.cluster.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def steps(self) -> list[dict[str, Any]]:
        try:
            return read_steps(self.folder / "out" / "run")
        except (OSError, ValueError):
            return []

    def output(self) -> str:
        files = sorted(self.folder.glob("launch/**/train/*.out")) + sorted(self.folder.glob("out/logs/*/*.err"))
        return "\n".join(f"--- {path}\n{path.read_text()[-3000:]}" for path in files)

    def wait_for_step(self, step: int) -> None:
        def reached() -> bool:
            if self.cluster.state(self.job) != "RUNNING":
                self.cluster.start_now(self.job)
            return any(entry["step"] >= step for entry in self.steps())

        self.cluster.wait(f"step {step}", PATIENCE_SECONDS, reached, self.output)

    def wait_for_state(self, state: str, seconds: float = PATIENCE_SECONDS) -> None:
        def ended() -> bool:
            found = self.cluster.state(self.job)
            if found not in ("RUNNING", state):
                self.cluster.start_now(self.job)
            # accounting says NODE_FAIL of a requeued job until it starts again
            assert found in ("PENDING", "RUNNING", "REQUEUED", "NODE_FAIL", "COMPLETING", "UNKNOWN", state), (
                f"{found}\n{self.output()}"
            )
            return found == state

        self.cluster.wait(state, seconds, ended, self.output)

    def wait_for_restart(self, count: int, meanwhile: Callable[[], Any] = lambda: None) -> None:
        """Until the job has been put back into the queue `count` times."""

        def restarted() -> bool:
            return f"Restarts={count} " in self.cluster.ask("scontrol", "show", "job", self.job)

        self.cluster.wait(f"restart {count}", PATIENCE_SECONDS, restarted, self.output)
        meanwhile()

    def cancel(self) -> None:
        """Cancel the job as a user would; fails if SLURM still lists it afterwards."""
        assert self.tell("cancel")
        rows, completing = ["squeue", "-h", "-o", "%i %T"], f"{self.job} COMPLETING"
        self.cluster.wait(
            "end", PATIENCE_SECONDS, lambda: completing not in self.cluster.ask(*rows).splitlines(), self.output
        )
        assert self.job not in self.cluster.ask(*rows).split(), f"waits for another start: {self.output()}"
        self.wait_for_state("CANCELLED")  # accounting follows a moment later

    def failures(self) -> list[Path]:
        """The file that counts the failures of the job, if there was a failure."""
        return list((self.folder / "launch" / self.folder.name).glob("failures_*"))

    def losses(self) -> list[str]:
        last = {entry["step"]: entry["loss"] for entry in self.steps()}
        return [float(last[step]).hex() for step in sorted(last)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of Qwen's vocabulary, because the trained model answers questions."""
    return make_inputs.make_dataset(tmp_path_factory.mktemp("dataset"), "qwen3")


@pytest.fixture(scope="module")
def recipe(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains a random model of Qwen's vocabulary on `dataset`."""
    folder = tmp_path_factory.mktemp("recipe")
    model = make_inputs.TINY_MODEL | {"vocab_size": make_inputs.QWEN_VOCAB_SIZE}
    run_processes.import_hf_folder(make_inputs.make_hf_folder(folder / "hf", **model), folder / "checkpoint")
    return make_inputs.write_recipe(
        folder / "recipe.toml", model=model, dataset=dataset, checkpoint=folder / "checkpoint", batch_rows=2, epochs=3
    )


@pytest.fixture(scope="module")
def undisturbed(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, dict[str, str]]:
    """An undisturbed training job, and the ids of its jobs."""
    job = Job(cluster, recipe, dataset, tmp_path_factory.mktemp("slurm") / "undisturbed")
    return job, job.launch()


def test_a_two_node_job_and_its_export_run_through_nemo_run(
    cluster: SlurmCluster, undisturbed: tuple[Job, dict[str, str]]
) -> None:
    job, jobs = undisturbed
    job.wait_for_state("COMPLETED")
    cluster.wait("export", PATIENCE_SECONDS, lambda: cluster.state(jobs["export"]) == "COMPLETED", job.output)
    assert (job.folder / "out" / "export" / "model.safetensors.index.json").is_file() or list(
        (job.folder / "out" / "export").glob("*.safetensors")
    )
    assert len(job.losses()) == STEPS
    assert json.loads(job.tell("status", "--json"))["states"] == {"train": "COMPLETED", "export": "COMPLETED"}
    assert f"step {STEPS:>5} of {STEPS}" in job.tell("logs", "--rank", "0")
    log = job.tell("logs")
    assert "ring over 2 ranks" in log and "node 1 of 2" in log
    names = {path.name for path in (job.folder / "out" / "logs").glob(f"{job.job}_0/rank_*")}
    assert names == {f"rank_{rank:05d}.{ending}" for rank in range(2) for ending in ("out", "err")}


def test_after_a_preemption_and_a_lost_node_the_losses_are_bitwise_the_same(
    cluster: SlurmCluster, undisturbed: tuple[Job, dict[str, str]], recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    job = Job(cluster, recipe, dataset, tmp_path / "hurt")
    job.launch("--jobs", "train", "train.check_ring=false")
    job.wait_for_step(3)
    cluster.ask("scontrol", "requeue", job.job)
    job.wait_for_restart(1)
    before = len(job.steps())
    assert 3 <= before < STEPS
    job.wait_for_step(before + 3)
    cluster.ask("scontrol", "update", "nodename=n2", "state=down", "reason=lost")
    job.wait_for_restart(2, lambda: cluster.resume("n2"))
    job.wait_for_state("COMPLETED")
    assert len(job.losses()) == STEPS and job.losses() == undisturbed[0].losses()


def test_the_warning_before_the_time_limit_saves_and_requeues_the_job(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    job = Job(cluster, recipe, dataset, tmp_path / "short")
    # nothing but the warning would save or end it; SLURM sends it at 30 s, or up to a minute earlier
    settings = ["parallel.expert=2", "train.save_every_steps=100000", "train.epochs=20000"]
    settings += ["optimizer.learning_rate=1e-4", "optimizer.min_learning_rate=1e-4", "resilience.spike_sigmas=0"]
    limit = ["slurm.time=00:06:00", "train.grace_seconds=330", "train.check_ring=false"]
    job.launch("--jobs", "train", f"train.overrides={settings}", *limit)
    assert "--signal=B:USR1@330" in next(job.folder.glob("launch/**/train_sbatch.sh")).read_text()
    job.wait_for_restart(1)
    [saved] = (job.folder / "out" / "run" / "checkpoints").glob("step_*")
    assert int(saved.name.removeprefix("step_")) == job.steps()[-1]["step"]
    assert not job.failures(), f"a warning is not a failure\n{job.output()}"
    job.cancel()


@pytest.mark.parametrize("code", [75, 143])
def test_a_cancelled_job_stays_cancelled_whatever_its_exit_code(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path: Path, code: int
) -> None:
    job = Job(cluster, recipe, dataset, tmp_path / "gone")
    program, began = tmp_path / "python", tmp_path / "began"
    program.write_text(f"#!/bin/sh\ntrap 'exit {code}' TERM\n: >> {began}\nwhile :; do sleep 0.2; done\n")
    program.chmod(0o755)
    job.launch("--jobs", "train", f"python={program}")
    cluster.wait("start", PATIENCE_SECONDS, began.exists, job.output)
    job.cancel()
    assert not job.failures(), f"a cancellation is not a failure\n{job.output()}"
    assert f"job exited with code {code}" in job.output()


def test_an_unknown_partition_account_or_image_is_refused_before_anything_is_submitted(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    job = Job(cluster, recipe, dataset, tmp_path / "wrong")
    before = cluster.ask("squeue", "-h", "-t", "all", "-o", "%i")
    for override, said in (
        ("slurm.partition=h100", "slurm.partition = 'h100' does not exist; the cluster has debug"),
        ("slurm.account=nobody", "slurm.account = 'nobody' does not exist; the cluster has"),
        ("train.processes_per_node=3", "2 x train.processes_per_node 3 = 6 ranks"),
        ("slurm.container_image=/no/image.sqsh", "no file /no/image.sqsh"),
    ):
        done = launch("slurm", job.folder / "experiment.toml", override, **cluster.environment)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert cluster.ask("squeue", "-h", "-t", "all", "-o", "%i") == before


def test_the_plain_batch_script_of_the_examples_trains_on_two_nodes(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    settings = {
        "PYTHON": sys.executable, "RECIPE": str(recipe), "OUT": str(tmp_path / "out"), "DATASET": str(dataset),
        "PROCESSES": "1", "CHECKS": "", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    script = str(ROOT / "examples" / "launch" / "train.sbatch")
    here = ["--account=acct", "--partition=debug", "--nodes=2", "--gpus-per-node=0", "--mem=100", "--time=30"]
    command = ["sbatch", "--parsable", *here, f"--output={tmp_path}/log", script]
    done = run_command(command, **settings, **cluster.environment)
    assert done.returncode == 0, done.stderr
    job, log = done.stdout.strip(), tmp_path / "log"
    cluster.wait("end", PATIENCE_SECONDS, lambda: cluster.state(job) == "COMPLETED", lambda: log.read_text()[-4000:])
    assert len(read_steps(tmp_path / "out" / "run")) >= 3
    assert "node 1 of 2" in log.read_text()


def test_the_export_is_served_and_scored_inside_a_job(
    cluster: SlurmCluster, undisturbed: tuple[Job, dict[str, str]], tmp_path: Path
) -> None:
    trained, jobs = undisturbed
    cluster.wait("export", PATIENCE_SECONDS, lambda: cluster.state(jobs["export"]) == "COMPLETED", trained.output)
    served = tmp_path / "bin" / "vllm"
    served.parent.mkdir()
    server = shlex.join([sys.executable, str(ROOT / "tests" / "support" / "model_server.py")])
    served.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "tests"} exec {server} "$@"\n')
    served.chmod(0o755)
    (tmp_path / "scores.toml").write_text(f"""
name = "scores"
[models.acc]
folder = "{trained.folder / "out" / "export"}"
engine = "vllm"
[benchmarks.walks]
kind = "graphwalks"
items = 2
length_tokens = [700]
max_new_tokens = 4
""")
    file = tmp_path / "experiment.toml"
    file.write_text(f"""
name = "scores"
out = "out"
workdir = "{tmp_path}"
launch_dir = "{tmp_path}/launch"
python = "{sys.executable}"
[eval]
run = "scores.toml"
[environment]
PATH = "{served.parent}:/usr/bin:/bin"
[slurm]
account = "acct"
partition = "debug"
cpu_memory = "100"
""")
    job = read_json(launch("slurm", file, "--json", **cluster.environment))["jobs"]["eval"]

    def output() -> str:
        return "\n".join(path.read_text()[-3000:] for path in tmp_path.glob("launch/**/*.out"))

    cluster.wait("scores", PATIENCE_SECONDS, lambda: cluster.state(job) == "COMPLETED", output)
    results = json.loads((tmp_path / "out" / "eval" / "results.json").read_bytes())
    assert results["benchmarks"]["walks"]["models"]["acc"]["num_items"] == 2
    assert "serving in process" in (tmp_path / "out" / "eval" / "vllm-acc.log").read_text()
