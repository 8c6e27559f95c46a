"""The experiment file: the jobs it becomes, and one error line for every mistake before anything is submitted."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import ROOT

from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import JOBS, Loaded
from acc_megatron.launch.jobs import build_jobs
from acc_megatron.launch.launch_record import Launched
from acc_megatron.launch.launcher import cancel, launch, log_text, states
from acc_megatron.launch.load_experiment import load_experiment
from acc_megatron.launch.targets.registry import TARGETS
from acc_megatron.launch.targets.slurm_settings import SlurmSettings
from acc_megatron.launch.targets.target import Preview

EXAMPLE = ROOT / "examples" / "experiment.toml"


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    queue: str = "day"


class BatchTarget:
    """A fourth target: a batch system that ends every job at once."""

    name, summary, settings = "batch", "Run the jobs on a batch system.", BatchSettings

    def check(self, loaded: Loaded) -> None:
        pass

    def dry_run(self, loaded: Loaded) -> Preview:
        return Preview("queues", {"all": loaded.experiment.settings(BatchSettings).queue})

    def submit(self, loaded: Loaded, record: Launched) -> None:
        record.jobs = {job.name: f"b-{number}" for number, job in enumerate(build_jobs(loaded))}
        record.save(loaded.folder)

    def states(self, loaded: Loaded, record: Launched) -> dict[str, str]:
        return dict.fromkeys(record.jobs, "DONE")

    def log(self, loaded: Loaded, record: Launched, job: str) -> str:
        return f"log of {record.jobs[job]}"

    def cancel(self, loaded: Loaded, record: Launched) -> None:
        pass


def load(*overrides: str, jobs: str | None = None) -> Loaded:
    return load_experiment(EXAMPLE, overrides, jobs)


def test_each_job_of_the_example_waits_for_the_one_before() -> None:
    jobs = build_jobs(load())
    names = ["compile", "convert", "merge", "train", "export", "eval"]
    assert [job.name for job in jobs] == names
    assert [job.needs for job in jobs] == [(), *((name,) for name in names[:-1])]
    by_name = {job.name: job for job in jobs}
    assert by_name["convert"].array == 64 and by_name["convert"].command[-2:] == ["--shard", "64"]
    assert by_name["train"].nodes == 8 and by_name["train"].gpus_per_node == 8
    written = {word for job in jobs for before, word in zip(job.command, job.command[1:], strict=False)
               if before == "--out"}  # fmt: skip
    assert written == {f"runs/acc-30b/{name}" for name in ("triples", "dataset", "export", "eval")}
    assert "train.run_dir=runs/acc-30b/run" in by_name["train"].command
    assert "runs/acc-30b/run" in by_name["export"].command


def test_the_selftest_runs_on_every_node_before_training_if_the_file_asks_for_it() -> None:
    def command(*overrides: str) -> list[str]:
        return next(job.command for job in build_jobs(load(*overrides)) if job.name == "train")

    assert "--selftest" not in command()
    asked = command("train.check_selftest=quick")
    assert asked[asked.index("--selftest") + 1] == "quick" and asked.index("--selftest") < asked.index("--")
    with pytest.raises(ConfigError, match="check_selftest"):
        load("train.check_selftest=some")


def test_on_one_machine_shards_are_the_workers_of_one_conversion() -> None:
    jobs = build_jobs(load("train.nodes=1", "train.processes_per_node=64"), one_machine=True)
    assert [job.name for job in jobs] == list(JOBS)
    assert jobs[1].command[-2:] == ["--workers", "64"] and jobs[1].array == 1


def test_only_the_chosen_jobs_run_and_the_first_waits_for_nothing() -> None:
    jobs = build_jobs(load(jobs="export,train"))
    assert [(job.name, job.needs) for job in jobs] == [("train", ()), ("export", ("train",))]


def test_variables_of_the_experiment_file_take_precedence_over_the_defaults() -> None:
    variables = job_environment(load("environment.NCCL_DEBUG=INFO", "network.socket_interface=eth7").experiment)
    assert variables["NCCL_DEBUG"] == "INFO" and variables["NCCL_SOCKET_IFNAME"] == "eth7"
    assert variables["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"


def test_triton_compiles_on_the_disk_of_the_node_and_not_in_the_home_folder() -> None:
    assert job_environment(load().experiment)["TRITON_CACHE_DIR"].startswith("/tmp/")


def test_a_time_limit_on_the_command_line_has_the_format_of_slurm() -> None:
    for limit in ("08:00:00", "2-08:00:00"):
        assert load(f"slurm.time={limit}").experiment.settings(SlurmSettings).time == limit


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.nodes=5"], ["train.nodes 5 x train.processes_per_node 8 = 40 ranks", "64 does not divide 40"]),
        (["train.nodes=0"], ["train.nodes", "at least 1"]),
        (["train.node=1"], ["unknown key train.node", "train.nodes"]),
        (["slrum.account=a"], ["unknown key slrum", "did you mean slurm?"]),
        (["slurm.acount=a"], ["unknown key slurm.acount", "did you mean slurm.account?"]),
        (["name=Big_Name"], ["lowercase letters"]),
        (["convert.shards=0"], ["convert.shards = 0"]),
        (["environment.A=1"], ["environment.A must be str, got 1"]),
        (["train.device=cpu", "train.overrides=[\"moe.dispatcher='deepep'\"]"], ["needs a GPU"]),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(overrides: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(*overrides)
    assert all(words in str(error.value) for words in said), error.value
    assert "\n" not in str(error.value)


def test_a_job_without_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown job 'trian'"):
        load(jobs="trian")
    (tmp_path / "a.toml").write_text('name = "a"\nout = "b"\n')
    with pytest.raises(ConfigError, match="describes no job"):
        load_experiment(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"no section \[train\]"):
        load_experiment(tmp_path / "a.toml", jobs="train")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["slurm.account="], "slurm.account is missing"),
        (["slurm.partition="], "slurm.partition is missing"),
        (["slurm.container_image=/no/where.sqsh"], "no file /no/where.sqsh"),
        (["eval.image=./no/where.sqsh"], "eval.image: no file ./no/where.sqsh"),
        (["slurm.container_image=reg#img:1", "slurm.container_mounts=[]"], "slurm.container_mounts is empty"),
    ],
)
def test_wrong_slurm_settings_are_refused_before_nemo_run_is_imported(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        launch(TARGETS["slurm"], load(*overrides, f"launch_dir={tmp_path}"), dry_run=False)
    assert said in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["kubernetes.image="], "kubernetes.image is missing"),
        (["workdir=here"], "must be an absolute path in the pod"),
        (["kubernetes.volumes={}"], "kubernetes.volumes is empty"),
        (["out=/tmp/out"], "out = /tmp/out is on no volume"),
        (["kubernetes.secrets={KEY = 'name'}"], "must be secret/key"),
        (
            ["kubernetes.kind=trainjob", "kubernetes.host_network=true"],
            "host_network needs kubernetes.kind = 'job'",
        ),
    ],
)
def test_wrong_kubernetes_settings_are_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    loaded = load("workdir=/data/acc", f"launch_dir={tmp_path}", *overrides)
    with pytest.raises(ConfigError) as error:
        launch(TARGETS["kubernetes"], loaded, dry_run=True)
    assert said in str(error.value) and not list(tmp_path.iterdir())


def test_nothing_is_submitted_without_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EnvironmentProblem, match=r"no kubeconfig at .*absent: set KUBECONFIG"):
        launch(TARGETS["kubernetes"], load("workdir=/data/acc"), dry_run=False)


def test_a_local_launch_of_several_nodes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.nodes = 8"):
        launch(TARGETS["local"], load(), dry_run=True)


def test_a_machine_without_sbatch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="no sbatch on PATH"):
        launch(TARGETS["slurm"], load(), dry_run=False)


def test_a_target_is_a_verb_and_a_section_and_is_found_again_by_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new target needs its class and its registration only."""
    monkeypatch.setitem(TARGETS, "batch", BatchTarget())
    loaded = load("batch.queue=night", f"launch_dir={tmp_path}", jobs="compile,convert")
    assert launch(TARGETS["batch"], loaded, dry_run=True) == {"queues": {"all": "night"}}
    assert launch(TARGETS["batch"], loaded, dry_run=False)["jobs"] == {
        "compile": "b-0",
        "convert": "b-1",
        "merge": "b-2",
    }
    assert states(loaded) == {"compile": "DONE", "convert": "DONE", "merge": "DONE"}
    assert log_text(loaded, "merge", None) == "log of b-2"
    assert cancel(loaded) == ["b-0", "b-1", "b-2"]
    with pytest.raises(EnvironmentProblem, match="no job 'train' was launched; launched jobs: compile, convert, merge"):
        log_text(loaded, "train", None)
    with pytest.raises(ConfigError, match=r"unknown key batch\.que"):
        load("batch.que=night")


def test_launching_imports_neither_torch_nor_nemo_run() -> None:
    code = (
        "import sys, pkgutil, importlib, acc_megatron.launch as launch, acc_megatron.cli.launch\n"
        "for found in pkgutil.walk_packages(launch.__path__, 'acc_megatron.launch.'):\n"
        "    importlib.import_module(found.name)\n"
        "wrong = {'torch', 'nemo_run', 'kubernetes', 'megatron'} & set(sys.modules)\nassert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
