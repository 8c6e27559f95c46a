"""SLURM for real: two virtual nodes run, lose, warn and restart a training job that nemo-run launched."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import SlurmCluster, launch, need_slurm, read_json

from acc_megatron.observe.metrics import read_steps

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.distributed]
STEPS = 60


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
        self.cluster.wait(f"step {step}", 180, lambda: any(s["step"] >= step for s in self.steps()), self.output)

    def wait_for_state(self, state: str, seconds: float = 240) -> None:
        def ended() -> bool:
            self.cluster.start_now(self.job)
            found = self.cluster.state(self.job)
            assert found in ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "UNKNOWN", state), (
                f"{found}\n{self.output()}"
            )
            return found == state

        self.cluster.wait(state, seconds, ended, self.output)

    def losses(self) -> list[str]:
        last = {entry["step"]: entry["loss"] for entry in self.steps()}
        return [float(last[step]).hex() for step in sorted(last)]


def test_a_two_node_job_and_its_export_run_through_nemo_run(
    cluster: SlurmCluster, recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    job = Job(cluster, recipe, dataset, tmp_path / "whole")
    jobs = job.launch()
    job.wait_for_state("COMPLETED")
    cluster.wait("export", 120, lambda: cluster.state(jobs["export"]) == "COMPLETED", job.output)
    assert len(job.losses()) == STEPS
