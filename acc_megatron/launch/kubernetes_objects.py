"""Kubernetes objects of the stages: Jobs, a Service for the training pods to meet at, a ConfigMap with the recipe.

Training is an Indexed Job whose pods find one another under the Service's name; convert is an Indexed Job of shards.
Each pod runs the same command as on SLURM, told its place by torchrun's own PET_ variables.
"""

from pathlib import PurePosixPath
from typing import Any

from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Experiment, KubernetesSettings, Loaded
from acc_megatron.launch.node import EXIT_STOPPED
from acc_megatron.launch.stages import Stage

Object = dict[str, Any]
RECIPE_FOLDER = "/etc/acc-megatron"
INDEX_FIELD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def recipe_path(loaded: Loaded) -> str | None:
    """Where pods find the recipe."""
    return f"{RECIPE_FOLDER}/{loaded.recipe.name}" if loaded.recipe else None


def job_name(experiment: Experiment, stage: Stage) -> str:
    """The name of a stage's job."""
    return f"{experiment.name}-{stage.name}"


def shared_objects(loaded: Loaded) -> list[Object]:
    """What the jobs of an experiment need beside them: the recipe, and a name for the training pods."""
    if loaded.recipe is None:
        return []
    experiment, name = loaded.experiment, f"{loaded.experiment.name}-train"
    data = {loaded.recipe.name: loaded.recipe.read_text(encoding="utf-8")}
    recipe = _object("v1", "ConfigMap", experiment, f"{experiment.name}-recipe") | {"data": data}
    if experiment.kubernetes.kind == "trainjob":
        return [recipe]  # Kubeflow makes a Service of its own
    service = _object("v1", "Service", experiment, name)
    service["spec"] = {
        "clusterIP": "None",
        "selector": {"batch.kubernetes.io/job-name": name},
        "publishNotReadyAddresses": True,  # pods look for node 0 before any of them is ready
        "ports": [{"name": "torchrun", "port": experiment.kubernetes.port}],
    }
    return [recipe, service]


def stage_job(loaded: Loaded, stage: Stage) -> Object:
    """The Job of one stage."""
    experiment, settings = loaded.experiment, loaded.experiment.kubernetes
    job = _object("batch/v1", "Job", experiment, job_name(experiment, stage))
    copies = stage.nodes if stage.kind == "train" else stage.array
    spec: Object = {
        "completions": copies,
        "parallelism": copies,
        # a training job fails with all its pods at once
        "backoffLimit": settings.retries * (copies if stage.kind == "train" else 1),
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [EXIT_STOPPED]}},
            ]
        },
        "template": {"metadata": {"labels": dict(settings.labels)}, "spec": pod_spec(loaded, stage)},
    }
    if copies > 1 or stage.kind == "train":
        spec["completionMode"] = "Indexed"
    return job | {"spec": spec}


def pod_spec(loaded: Loaded, stage: Stage) -> Object:
    """The pod of a stage."""
    experiment, settings = loaded.experiment, loaded.experiment.kubernetes
    spec: Object = {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": stage.image or settings.image,
                "command": stage.command,
                "workingDir": experiment.workdir,
                "env": container_environment(experiment, stage),
                "resources": resources(settings, stage),
                "volumeMounts": volume_mounts(loaded, stage),
            }
        ],
        "volumes": volumes(loaded, stage),
    }
    if stage.kind == "train" and experiment.train is not None:
        spec["subdomain"] = job_name(experiment, stage)
        # between SIGTERM and the end there is time for the checkpoint, and a little to end in
        spec["terminationGracePeriodSeconds"] = experiment.train.grace_seconds + 30
    if settings.node_selector and stage.is_large:
        spec["nodeSelector"] = dict(settings.node_selector)
    if settings.host_network:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if settings.tolerations and stage.gpus_per_node:
        spec["tolerations"] = tolerations(settings)
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    return spec


def tolerations(settings: KubernetesSettings) -> list[Object]:
    """Taints that the pods of GPU stages accept."""
    return [{"key": key, "operator": "Exists"} for key in settings.tolerations]


def secret_environment(settings: KubernetesSettings) -> list[Object]:
    """Variables whose values stand in secrets; only names are written down."""
    variables = []
    for variable, source in settings.secrets.items():
        name, _, key = source.partition("/")
        variables.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return variables


def container_environment(experiment: Experiment, stage: Stage) -> list[Object]:
    """The job's variables, secrets by reference, and for training pods their place among the nodes."""
    variables: list[Object] = [{"name": key, "value": value} for key, value in job_environment(experiment).items()]
    variables += secret_environment(experiment.kubernetes)
    if stage.kind == "train":
        name = job_name(experiment, stage)
        variables += [
            {"name": "PET_NNODES", "value": str(stage.nodes)},
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX_FIELD}}},
            {"name": "PET_MASTER_ADDR", "value": f"{name}-0.{name}.{experiment.kubernetes.namespace}.svc"},
            {"name": "PET_MASTER_PORT", "value": str(experiment.kubernetes.port)},
        ]
    return variables


def resources(settings: KubernetesSettings, stage: Stage) -> Object:
    """Requests equal limits, so that pods are neither throttled by neighbours nor evicted first."""
    wanted = {
        "cpu": settings.cpus if stage.is_large else settings.stage_cpus,
        "memory": settings.memory if stage.is_large else settings.stage_memory,
    }
    if stage.gpus_per_node:
        wanted["nvidia.com/gpu"] = str(stage.gpus_per_node)
    if stage.kind == "train":
        wanted |= settings.rdma
    return {"requests": dict(wanted), "limits": dict(wanted)}


def volumes(loaded: Loaded, stage: Stage) -> list[Object]:
    """Claims, for training the recipe, and /dev/shm where GPUs or ranks exchange through it."""
    settings = loaded.experiment.kubernetes
    found: list[Object] = [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(settings.volumes)
    ]
    if stage.kind == "train":
        found.append({"name": "recipe", "configMap": {"name": f"{loaded.experiment.name}-recipe"}})
    if stage.is_large:
        found.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}})
    return found


def volume_mounts(loaded: Loaded, stage: Stage) -> list[Object]:
    """Where the pod sees its volumes."""
    settings = loaded.experiment.kubernetes
    mounts: list[Object] = [
        {"name": f"claim-{number}", "mountPath": path} for number, path in enumerate(settings.volumes.values())
    ]
    if stage.kind == "train":
        mounts.append({"name": "recipe", "mountPath": RECIPE_FOLDER, "readOnly": True})
    if stage.is_large:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return mounts


def is_below_a_volume(settings: KubernetesSettings, path: str) -> bool:
    """Whether what a pod writes there outlives it."""
    return any(PurePosixPath(path).is_relative_to(mount) for mount in settings.volumes.values())


def _object(version: str, kind: str, experiment: Experiment, name: str) -> Object:
    labels = {"app.kubernetes.io/part-of": experiment.name} | experiment.kubernetes.labels
    metadata = {"name": name, "namespace": experiment.kubernetes.namespace, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
