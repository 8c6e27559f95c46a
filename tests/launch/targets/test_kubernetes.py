"""Kubernetes: every object strictly valid, and launch, status, logs and cancel against an API server over HTTP."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, run_command
from support.slurm_cluster import LAUNCHER, SUPPORT, launch, need_launcher, read_json

EXPERIMENT = """
name = "acc"
out = "runs/one"
workdir = "/data/acc"
launch_dir = "{folder}/launch"
[compile]
inputs = ["trajectories"]
[convert]
shards = 3
[train]
recipe = "{recipe}"
nodes = 8
[export]
[eval]
gpus = 2
image = "registry.example/acc-vllm:1"
[network]
infiniband_adapters = "mlx5"
[kubernetes]
namespace = "training"
image = "registry.example/acc-megatron:1"
volumes = {{acc-data = "/data"}}
secrets = {{HF_TOKEN = "hub/token"}}
image_pull_secrets = ["registry"]
node_selector = {{"node.example/gpu" = "h100"}}
labels = {{"kueue.x-k8s.io/queue-name" = "team"}}
rdma = {{"rdma/hca_shared_devices_a" = "8"}}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    recipe = ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml"
    path.write_text(EXPERIMENT.format(folder=tmp_path, recipe=recipe))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The folder of a running API server."""
    need_launcher()
    folder = tmp_path / "server"
    folder.mkdir()
    with (folder / "log").open("w") as log:
        command = [LAUNCHER.with_name("python"), "-m", "support.kube_api", folder]
        environment = os.environ | {"PYTHONPATH": str(SUPPORT.parent)}
        process = subprocess.Popen(command, stderr=log, env=environment)
    try:
        end = time.monotonic() + 120
        while not (folder / "kubeconfig").is_file():
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield folder
    finally:
        process.kill()
        process.wait()


def check(*files: Path) -> dict[str, list[str]]:
    """The problems that a strict server would report for manifests."""
    need_launcher()
    done = run_command([str(LAUNCHER.with_name("python")), str(SUPPORT / "kube_check.py"), *map(str, files)])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def manifests(experiment: Path, *overrides: str) -> dict[str, Path]:
    result = read_json(launch("kubernetes", experiment, *overrides, "--dry-run", "--json"))
    return {name: Path(path) for name, path in result["manifests"].items()}


def container(body: dict[str, Any]) -> dict[str, Any]:
    return body["spec"]["template"]["spec"]["containers"][0]


def test_every_manifest_of_a_dry_run_is_strictly_valid_and_follows_the_settings(experiment: Path) -> None:
    files = manifests(experiment)
    assert list(files) == ["compile", "convert", "merge", "train", "export", "eval"]
    assert check(*files.values()) == {str(path): [] for path in files.values()}
    recipe, service, train = json.loads(files["train"].read_text())["items"]
    assert (
        recipe["data"]["qwen3_30b_a3b_128k_h100.toml"]
        == (ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml").read_text()
    )
    assert service["spec"]["clusterIP"] == "None" and train["spec"]["template"]["spec"]["subdomain"] == "acc-train"
    assert train["spec"]["completionMode"] == "Indexed" and train["spec"]["parallelism"] == 8
    limits = container(train)["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "8" and limits["rdma/hca_shared_devices_a"] == "8"
    assert container(train)["securityContext"] == {"capabilities": {"add": ["IPC_LOCK"]}}, "RDMA pins memory"
    pod = train["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"node.example/gpu": "h100"} and pod["terminationGracePeriodSeconds"] == 630
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in pod["volumes"]
    token = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert {"name": "HF_TOKEN", "valueFrom": token} in container(train)["env"]
    [convert] = json.loads(files["convert"].read_text())["items"]
    assert convert["spec"]["completions"] == 3 and container(convert)["command"][-2:] == ["--shard", "3"]
    [evaluation] = json.loads(files["eval"].read_text())["items"]
    assert container(evaluation)["resources"]["limits"] == {"nvidia.com/gpu": "2", "cpu": "64", "memory": "512Gi"}
    assert container(evaluation)["image"] == "registry.example/acc-vllm:1"
    assert "securityContext" not in container(evaluation)
    served = evaluation["spec"]["template"]["spec"]
    assert served["nodeSelector"] == pod["nodeSelector"] and served["volumes"][-1]["name"] == "shm"


@pytest.mark.slow
def test_kubeflows_models_keep_every_field_of_the_trainjob(experiment: Path) -> None:
    files = manifests(experiment, "kubernetes.kind=trainjob", "kubernetes.service_account=runner")
    assert check(*files.values()) == {str(path): [] for path in files.values()}
    recipe, train = json.loads(files["train"].read_text())["items"]
    assert (recipe["kind"], train["kind"]) == ("ConfigMap", "TrainJob")
    trainer, [override] = train["spec"]["trainer"], train["spec"]["podTemplateOverrides"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (8, 8)
    assert trainer["command"][:3] == ["env", "-C", "/data/acc"] and trainer["command"][-1].startswith("train.run_dir=")
    assert {volume["name"] for volume in override["spec"]["volumes"]} == {"claim-0", "recipe", "shm"}
    # the check itself reports a lost field
    train["spec"]["podTemplateOverridez"] = train["spec"].pop("podTemplateOverrides")
    files["train"].write_text(json.dumps(train))
    assert check(files["train"])[str(files["train"])] == ["TrainJob: unknown field .spec.podTemplateOverridez"]


@pytest.mark.parametrize("kind", ["job", pytest.param("trainjob", marks=pytest.mark.slow)])
def test_launch_status_logs_and_cancel_over_http(kind: str, experiment: Path, server: Path) -> None:
    environment = {"KUBECONFIG": str(server / "kubeconfig")}
    options = [experiment, f"kubernetes.kind={kind}"]
    (server / "conditions.json").write_text(json.dumps({"acc-convert": "Complete", "acc-merge": "Complete"}))
    done = launch("kubernetes", *options, "--jobs", "convert,train", "--json", **environment)
    assert read_json(done)["jobs"] == {"convert": "acc-convert", "merge": "acc-merge", "train": "acc-train"}
    requests = [json.loads(line) for line in (server / "requests.jsonl").read_text().splitlines()]
    posts = [(path.rsplit("/")[-1], "dryRun" in query) for method, path, query in requests if method == "post"]
    names = ["configmaps", "services", "jobs", "jobs", "jobs"] if kind == "job" else [
        "configmaps", "jobs", "jobs", "trainjobs",
    ]  # fmt: skip
    assert [name for name, dry in posts if dry] == names, "all are checked"
    assert posts.index((names[0], False)) == len(names), "before any is kept"
    states = read_json(launch("status", *options, "--json", **environment))["states"]
    assert states["merge"] == "SUCCEEDED" and states["train"] in ("RUNNING", "PENDING")
    assert "said by acc-train-0-abcde" in launch("logs", experiment, "train", options[1], **environment).stdout
    again = launch("kubernetes", *options, "--jobs", "train", **environment)
    assert again.returncode == 2 and "409" in again.stderr and "launch cancel" in again.stderr
    assert launch("cancel", *options, **environment).returncode == 0
    assert set(read_json(launch("status", *options, "--json", **environment))["states"].values()) == {"GONE"}


def test_jobs_after_a_failed_job_are_not_created(experiment: Path, server: Path) -> None:
    environment = {"KUBECONFIG": str(server / "kubeconfig")}
    (server / "conditions.json").write_text(json.dumps({"acc-convert": "Failed"}))
    done = launch("kubernetes", experiment, "--jobs", "convert,train", **environment)
    assert done.returncode == 1 and "acc-convert ended as FAILED" in done.stderr
    states = read_json(launch("status", experiment, "--json", **environment))["states"]
    assert states == {"convert": "FAILED"}
