"""Kubernetes objects: one Job per job, a Service through which training pods find one another, a ConfigMap.

Training is an Indexed Job whose pods use the name of the Service; convert is an Indexed Job of shards. Each pod runs
the same command as on SLURM; torchrun's own PET_ variables tell it its rank. The ConfigMap contains the recipe.
"""

from typing import Any

from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Experiment, Loaded
from acc_megatron.launch.jobs import Job
from acc_megatron.launch.node import EXIT_STOPPED
from acc_megatron.launch.targets.kubernetes_settings import KubernetesSettings

Object = dict[str, Any]
RECIPE_FOLDER = "/etc/acc-megatron"
INDEX_FIELD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def recipe_path(loaded: Loaded) -> str | None:
    """The path of the recipe in a pod."""
    return f"{RECIPE_FOLDER}/{loaded.recipe.name}" if loaded.recipe else None


def object_name(experiment: Experiment, job: Job) -> str:
    """The name of the object that runs a job."""
    return f"{experiment.name}-{job.name}"


def shared_objects(loaded: Loaded) -> list[Object]:
    """Objects that the jobs use: the ConfigMap with the recipe, and the Service of the training pods."""
    if loaded.recipe is None:
        return []
    experiment, name = loaded.experiment, f"{loaded.experiment.name}-train"
    data = {loaded.recipe.name: loaded.recipe.read_text(encoding="utf-8")}
    recipe = _object("v1", "ConfigMap", experiment, f"{experiment.name}-recipe") | {"data": data}
    if experiment.settings(KubernetesSettings).kind == "trainjob":
        return [recipe]  # Kubeflow creates its own Service
    service = _object("v1", "Service", experiment, name)
    service["spec"] = {
        "clusterIP": "None",
        "selector": {"batch.kubernetes.io/job-name": name},
        "publishNotReadyAddresses": True,  # pods resolve node 0 before any of them is ready
        "ports": [{"name": "torchrun", "port": experiment.settings(KubernetesSettings).port}],
    }
    return [recipe, service]


def job_object(loaded: Loaded, job: Job) -> Object:
    """The Job object of one job."""
    experiment, settings = loaded.experiment, loaded.experiment.settings(KubernetesSettings)
    body = _object("batch/v1", "Job", experiment, object_name(experiment, job))
    copies = job.nodes if job.kind == "train" else job.array
    spec: Object = {
        "completions": copies,
        "parallelism": copies,
        # when a training job fails, all its pods fail at once
        "backoffLimit": settings.retries * (copies if job.kind == "train" else 1),
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [EXIT_STOPPED]}},
            ]
        },
        "template": {"metadata": {"labels": dict(settings.labels)}, "spec": pod_spec(loaded, job)},
    }
    if copies > 1 or job.kind == "train":
        spec["completionMode"] = "Indexed"
    return body | {"spec": spec}


def pod_spec(loaded: Loaded, job: Job) -> Object:
    """The pod of a job."""
    experiment, settings = loaded.experiment, loaded.experiment.settings(KubernetesSettings)
    spec: Object = {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": job.image or settings.image,
                "command": job.command,
                "workingDir": experiment.workdir,
                "env": container_environment(experiment, job),
                "resources": resources(settings, job),
                "volumeMounts": volume_mounts(loaded, job),
                **security_context(settings, job),
            }
        ],
        "volumes": volumes(loaded, job),
    }
    if job.kind == "train" and experiment.train is not None:
        spec["subdomain"] = object_name(experiment, job)
        # time for the checkpoint between SIGTERM and SIGKILL, and 30 s to exit
        spec["terminationGracePeriodSeconds"] = experiment.train.grace_seconds + 30
    if settings.node_selector and job.is_large:
        spec["nodeSelector"] = dict(settings.node_selector)
    if settings.host_network:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if settings.tolerations and job.gpus_per_node:
        spec["tolerations"] = tolerations(settings)
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    return spec


def tolerations(settings: KubernetesSettings) -> list[Object]:
    """Tolerations of pods with GPUs."""
    return [{"key": key, "operator": "Exists"} for key in settings.tolerations]


def secret_environment(settings: KubernetesSettings) -> list[Object]:
    """Variables whose values come from secrets; manifests contain only the names."""
    variables = []
    for variable, source in settings.secrets.items():
        name, _, key = source.partition("/")
        variables.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return variables


def container_environment(experiment: Experiment, job: Job) -> list[Object]:
    """The variables of a job, secrets by reference, and for training pods the rank of their node."""
    variables: list[Object] = [{"name": key, "value": value} for key, value in job_environment(experiment).items()]
    settings = experiment.settings(KubernetesSettings)
    variables += secret_environment(settings)
    if job.kind == "train":
        name = object_name(experiment, job)
        variables += [
            {"name": "PET_NNODES", "value": str(job.nodes)},
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX_FIELD}}},
            {
                "name": "PET_MASTER_ADDR",
                "value": f"{name}-0.{name}.{settings.namespace}.svc",
            },
            {"name": "PET_MASTER_PORT", "value": str(settings.port)},
        ]
    return variables


def resources(settings: KubernetesSettings, job: Job) -> Object:
    """Equal requests and limits, so that neighbours do not slow a pod down and it is not evicted first."""
    wanted = {
        "cpu": settings.cpus if job.is_large else settings.small_cpus,
        "memory": settings.memory if job.is_large else settings.small_memory,
    }
    if job.gpus_per_node:
        wanted["nvidia.com/gpu"] = str(job.gpus_per_node)
    if job.kind == "train":
        wanted |= settings.rdma
    return {"requests": dict(wanted), "limits": dict(wanted)}


def security_context(settings: KubernetesSettings, job: Job) -> Object:
    """The right to pin memory, which RDMA needs, for training containers with RDMA devices."""
    if job.kind != "train" or not settings.rdma:
        return {}
    return {"securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}


def volumes(loaded: Loaded, job: Job) -> list[Object]:
    """The claims, the recipe for training, and /dev/shm for pods with GPUs or several ranks."""
    settings = loaded.experiment.settings(KubernetesSettings)
    found: list[Object] = [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(settings.volumes)
    ]
    if job.kind == "train":
        found.append({"name": "recipe", "configMap": {"name": f"{loaded.experiment.name}-recipe"}})
    if job.is_large:
        found.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}})
    return found


def volume_mounts(loaded: Loaded, job: Job) -> list[Object]:
    """The mount paths of the volumes."""
    settings = loaded.experiment.settings(KubernetesSettings)
    mounts: list[Object] = [
        {"name": f"claim-{number}", "mountPath": path} for number, path in enumerate(settings.volumes.values())
    ]
    if job.kind == "train":
        mounts.append({"name": "recipe", "mountPath": RECIPE_FOLDER, "readOnly": True})
    if job.is_large:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return mounts


def _object(version: str, kind: str, experiment: Experiment, name: str) -> Object:
    labels = {"app.kubernetes.io/part-of": experiment.name} | experiment.settings(KubernetesSettings).labels
    metadata = {"name": name, "namespace": experiment.settings(KubernetesSettings).namespace, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
