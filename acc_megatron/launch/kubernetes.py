"""Launching on Kubernetes: manifests to a folder, or objects to a cluster, each stage when the one before is done."""

import json
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from acc_megatron.errors import ConfigError
from acc_megatron.launch import kubernetes_objects as objects
from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Experiment, Loaded
from acc_megatron.launch.kubernetes_client import connect
from acc_megatron.launch.nemo import import_nemo_run
from acc_megatron.launch.record import Launched
from acc_megatron.launch.stages import Stage, build_stages
from acc_megatron.launch.submit import StageFailed

POLL_SECONDS = 5.0


def launch_kubernetes(loaded: Loaded, *, dry_run: bool) -> dict[str, Any]:
    """Create the stages' jobs in order, waiting for each but the last; or write their manifests."""
    check_settings(loaded.experiment)
    stages = build_stages(loaded, recipe=objects.recipe_path(loaded))
    if dry_run:
        return {"manifests": {name: str(path) for name, path in _write(loaded, stages).items()}}
    cluster = connect(loaded.experiment.kubernetes)
    shared = objects.shared_objects(loaded)
    bodies = {stage.name: stage_body(loaded, stage) for stage in stages}
    cluster.check([*shared, *bodies.values()])
    cluster.create(shared)
    record = Launched(target="kubernetes")
    for stage in stages:
        name = bodies[stage.name]["metadata"]["name"]
        cluster.create([bodies[stage.name]])
        record.jobs[stage.name] = name
        record.save(loaded.folder)
        if stage is not stages[-1]:
            state = cluster.wait(name, poll_seconds=POLL_SECONDS, say=lambda line: print(line, file=sys.stderr))
            if state != "SUCCEEDED":
                raise StageFailed(
                    f"{name} ended as {state}: 'acc-megatron launch logs {loaded.file} {stage.name}' says why"
                )
    return {"jobs": record.jobs, "record": str(loaded.folder)}


def stage_body(loaded: Loaded, stage: Stage) -> dict[str, Any]:
    """The object that runs a stage: a Job, or for training a TrainJob where the experiment says so."""
    if stage.kind == "train" and loaded.experiment.kubernetes.kind == "trainjob":
        return trainjob(loaded, stage)
    return objects.stage_job(loaded, stage)


def trainjob(loaded: Loaded, stage: Stage) -> dict[str, Any]:
    """Kubeflow's TrainJob as nemo-run makes it; its runtime sets the same PET_ variables as our Jobs."""
    experiment, settings = loaded.experiment, loaded.experiment.kubernetes
    import_nemo_run(loaded.folder)
    from nemo_run.core.execution.kubeflow import KubeflowExecutor

    class Offline(KubeflowExecutor):
        """Makes the body; our client sends it, which wants no second connection."""

        def _load_kube_clients(self) -> None:
            pass

    wanted = objects.resources(settings, stage)["limits"]
    gpus = wanted.pop("nvidia.com/gpu", None)
    pod: dict[str, Any] = {"nodeSelector": dict(settings.node_selector)} if settings.node_selector else {}
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    executor = Offline(
        runtime_ref=settings.runtime,
        namespace=settings.namespace,
        image=settings.image,
        num_nodes=stage.nodes,
        nprocs_per_node=experiment.train.processes_per_node if experiment.train else 1,
        gpus_per_node=int(gpus) if gpus else None,
        extra_resource_requests=dict(wanted),
        extra_resource_limits=dict(wanted),
        env_vars=job_environment(experiment),
        env_list=objects.secret_environment(settings),
        volumes=objects.volumes(loaded, stage),
        volume_mounts=objects.volume_mounts(loaded, stage),
        tolerations=objects.tolerations(settings) if stage.gpus_per_node else [],
        labels={"app.kubernetes.io/part-of": experiment.name} | settings.labels,
        pod_labels=dict(settings.labels),
        image_pull_secrets=list(settings.image_pull_secrets),
        pod_spec_overrides=pod,
    )
    command = ["env", "-C", experiment.workdir, *stage.command]  # the trainer has no field for the working folder
    return executor.get_job_body(objects.job_name(experiment, stage), command)


def check_settings(experiment: Experiment) -> None:
    """Refuse what can be seen without a cluster; raises ConfigError."""
    settings = experiment.kubernetes
    if not settings.image:
        raise ConfigError("kubernetes.image is missing: the image that every pod runs, as registry/acc-megatron:tag")
    if not PurePosixPath(experiment.workdir).is_absolute():
        raise ConfigError(
            f"workdir = {experiment.workdir!r} must be a path in the pod, as /data/acc: pods share no '.'"
        )
    if not settings.volumes:
        raise ConfigError('kubernetes.volumes is empty: name a claim and its place, as {acc-data = "/data"}')
    out = str(PurePosixPath(experiment.workdir) / experiment.out)
    if not objects.is_below_a_volume(settings, out):
        mounts = ", ".join(settings.volumes.values())
        raise ConfigError(f"out = {out} is in no volume ({mounts}), so that it would be lost with the pod")
    if settings.kind == "trainjob" and (settings.host_network or settings.priority_class):
        key = "host_network" if settings.host_network else "priority_class"
        raise ConfigError(
            f"kubernetes.{key} works with kubernetes.kind = 'job': a TrainJob has no such field, so set it in the "
            f"ClusterTrainingRuntime {settings.runtime}"
        )
    for variable, source in settings.secrets.items():
        if source.count("/") != 1:
            raise ConfigError(f"kubernetes.secrets.{variable} = {source!r} must be secret/key")
    if settings.service_account is None and settings.kind == "trainjob" and settings.priority_class:
        raise ConfigError(
            "kubernetes.priority_class works with kubernetes.kind = 'job': set a trainjob's in its runtime"
        )


def _write(loaded: Loaded, stages: list[Stage]) -> dict[str, Path]:
    """A JSON file a stage, which kubectl apply takes; the recipe and the Service come with training."""
    folder = loaded.folder / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for stage in stages:
        items = objects.shared_objects(loaded) if stage.kind == "train" else []
        body = {"apiVersion": "v1", "kind": "List", "items": [*items, stage_body(loaded, stage)]}
        paths[stage.name] = folder / f"{stage.name}.json"
        paths[stage.name].write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return paths
