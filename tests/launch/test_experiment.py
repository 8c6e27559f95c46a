"""The experiment file: what its stages become, and every mistake refused by one line before anything is submitted."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from acc_megatron.errors import AccError, ConfigError, EnvironmentProblem
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import STAGES, Loaded, load_experiment
from acc_megatron.launch.kubernetes import launch_kubernetes
from acc_megatron.launch.stages import build_stages
from acc_megatron.launch.submit import launch_local, launch_slurm

EXAMPLE = ROOT / "examples" / "experiment.toml"


def load(*overrides: str, stages: str | None = None) -> Loaded:
    return load_experiment(EXAMPLE, overrides, stages)


def test_the_stages_of_the_example_wait_for_one_another_in_the_order_of_the_road() -> None:
    stages = build_stages(load())
    names = ["compile", "convert", "merge", "train", "export", "eval"]
    assert [stage.name for stage in stages] == names
    assert [stage.needs for stage in stages] == [(), *((name,) for name in names[:-1])]
    by_name = {stage.name: stage for stage in stages}
    assert by_name["convert"].array == 64 and by_name["convert"].command[-2:] == ["--shard", "64"]
    assert by_name["train"].nodes == 8 and by_name["train"].gpus_per_node == 8
    written = {word for stage in stages for before, word in zip(stage.command, stage.command[1:], strict=False)
               if before == "--out"}  # fmt: skip
    assert written == {f"runs/acc-30b/{name}" for name in ("triples", "dataset", "export", "eval")}
    assert "train.run_dir=runs/acc-30b/run" in by_name["train"].command
    assert "runs/acc-30b/run" in by_name["export"].command


def test_on_one_machine_shards_are_the_processes_of_one_conversion() -> None:
    stages = build_stages(load("train.nodes=1", "train.processes_per_node=64"), one_machine=True)
    assert [stage.name for stage in stages] == list(STAGES)
    assert stages[1].command[-2:] == ["--workers", "64"] and stages[1].array == 1


def test_chosen_stages_alone_run_and_the_first_waits_for_nothing() -> None:
    stages = build_stages(load(stages="export,train"))
    assert [(stage.name, stage.needs) for stage in stages] == [("train", ()), ("export", ("train",))]


def test_the_users_environment_wins_over_the_defaults() -> None:
    variables = job_environment(load("environment.NCCL_DEBUG=INFO", "network.socket_interface=eth7").experiment)
    assert variables["NCCL_DEBUG"] == "INFO" and variables["NCCL_SOCKET_IFNAME"] == "eth7"
    assert variables["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"


def test_a_time_limit_may_be_given_on_the_command_line_as_the_batch_system_writes_it() -> None:
    assert load("slurm.time=08:00:00").experiment.slurm.time == "08:00:00"
    assert load("slurm.time=2-08:00:00").experiment.slurm.time == "2-08:00:00"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.nodes=5"], ["train.nodes 5 x train.processes_per_node 8 = 40 ranks", "16 does not divide 40"]),
        (["train.nodes=0"], ["train.nodes", "at least 1"]),
        (["train.node=1"], ["unknown key train.node", "train.nodes"]),
        (["name=Big_Name"], ["small letters"]),
        (["convert.shards=0"], ["convert.shards = 0"]),
        (["environment.A=1"], ["environment.A must be str, got 1"]),
        (["train.device=cpu", "train.overrides=[\"moe.dispatcher='deepep'\"]"], ["needs a GPU"]),
    ],
)
def test_a_wrong_experiment_is_refused_by_key(overrides: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(*overrides)
    assert all(words in str(error.value) for words in said), error.value
    assert "\n" not in str(error.value)


def test_a_stage_that_is_not_described_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'trian' is no stage"):
        load(stages="trian")
    (tmp_path / "a.toml").write_text('name = "a"\nout = "b"\n')
    with pytest.raises(ConfigError, match="describes no stage"):
        load_experiment(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"no section \[train\]"):
        load_experiment(tmp_path / "a.toml", stages="train")


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
def test_slurm_settings_are_refused_before_nemo_run_is_even_imported(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        launch_slurm(load(*overrides, f"launch_dir={tmp_path}"), dry_run=False)
    assert said in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["kubernetes.image="], "kubernetes.image is missing"),
        (["workdir=here"], "must be a path in the pod"),
        (["kubernetes.volumes={}"], "kubernetes.volumes is empty"),
        (["out=/tmp/out"], "out = /tmp/out is in no volume"),
        (["kubernetes.secrets={KEY = 'name'}"], "must be secret/key"),
        (["kubernetes.kind=trainjob", "kubernetes.host_network=true"], "kubernetes.host_network works with"),
    ],
)
def test_kubernetes_settings_are_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    loaded = load("workdir=/data/acc", f"launch_dir={tmp_path}", *overrides)
    with pytest.raises(ConfigError) as error:
        launch_kubernetes(loaded, dry_run=True)
    assert said in str(error.value) and not list(tmp_path.iterdir())


def test_without_a_kubeconfig_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EnvironmentProblem, match=r"no kubeconfig at .*absent: set KUBECONFIG"):
        launch_kubernetes(load("workdir=/data/acc"), dry_run=False)


def test_a_laptop_is_one_node_and_a_login_node_has_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccError, match=r"train\.nodes = 8"):
        launch_local(load(), dry_run=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="no sbatch here"):
        launch_slurm(load(), dry_run=False)


def test_launching_imports_neither_torch_nor_nemo_run() -> None:
    code = (
        "import sys, pkgutil, importlib, acc_megatron.launch as launch, acc_megatron.cli.launch\n"
        "for found in pkgutil.iter_modules(launch.__path__):\n"
        "    importlib.import_module(f'acc_megatron.launch.{found.name}')\n"
        "wrong = {'torch', 'nemo_run', 'kubernetes', 'megatron'} & set(sys.modules)\nassert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
