"""Launching on Kubernetes: create the jobs one after the other on a cluster, or write manifests to a folder."""

import json
import sys
from pathlib import PurePosixPath
from typing import Any

from acc_megatron.errors import ConfigError, JobFailed
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.jobs import Job, build_jobs
from acc_megatron.launch.launch_record import Launched
from acc_megatron.launch.targets import kubernetes_objects as objects
from acc_megatron.launch.targets.kubernetes_client import Cluster, connect
from acc_megatron.launch.targets.kubernetes_settings import KubernetesSettings
from acc_megatron.launch.targets.kubernetes_trainjob import trainjob
from acc_megatron.launch.targets.target import Preview

POLL_SECONDS = 5.0


class KubernetesTarget:
    """The cluster of the current kubeconfig context."""

    name = "kubernetes"
    summary = "Create the jobs on Kubernetes, each after the one before has succeeded; waits for all but the last."
    settings = KubernetesSettings

    def check(self, loaded: Loaded) -> None:
        """Image, volumes, secrets and the kind of job must be set and consistent."""
        settings = loaded.experiment.settings(KubernetesSettings)
        if not settings.image:
            raise ConfigError(
                "kubernetes.image is missing: set the image of the pods, for example registry/acc-megatron:tag"
            )
        _check_paths(loaded, settings)
        _check_kind(settings)
        for variable, source in settings.secrets.items():
            if source.count("/") != 1:
                raise ConfigError(f"kubernetes.secrets.{variable} = {source!r} must be secret/key")

    def dry_run(self, loaded: Loaded) -> Preview:
        """Write one JSON file per job for kubectl apply; that of training also has the recipe and the Service."""
        folder = loaded.folder / "manifests"
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for job in _jobs(loaded):
            items = objects.shared_objects(loaded) if job.kind == "train" else []
            body = {"apiVersion": "v1", "kind": "List", "items": [*items, job_body(loaded, job)]}
            path = folder / f"{job.name}.json"
            path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
            paths[job.name] = str(path)
        return Preview("manifests", paths)

    def submit(self, loaded: Loaded, record: Launched) -> None:
        """The server checks all objects first; then each job is created when the one before has succeeded."""
        cluster, jobs = _cluster(loaded), _jobs(loaded)
        shared = objects.shared_objects(loaded)
        bodies = {job.name: job_body(loaded, job) for job in jobs}
        cluster.check([*shared, *bodies.values()])
        cluster.create(shared)
        for job in jobs:
            name = bodies[job.name]["metadata"]["name"]
            cluster.create([bodies[job.name]])
            record.jobs[job.name] = name
            record.save(loaded.folder)
            if job is not jobs[-1]:
                state = cluster.wait(name, poll_seconds=POLL_SECONDS, say=lambda line: print(line, file=sys.stderr))
                if state != "SUCCEEDED":
                    raise JobFailed(
                        f"{name} ended as {state}: 'acc-megatron launch logs {loaded.file} {job.name}' prints its log"
                    )

    def states(self, loaded: Loaded, record: Launched) -> dict[str, str]:
        """PENDING, RUNNING, SUCCEEDED, FAILED or GONE."""
        cluster = _cluster(loaded)
        return {job: cluster.state(name) for job, name in record.jobs.items()}

    def log(self, loaded: Loaded, record: Launched, job: str) -> str:
        """The logs of the job's pods."""
        return _cluster(loaded).logs(record.jobs[job])

    def cancel(self, loaded: Loaded, record: Launched) -> None:
        """Delete the jobs and their pods."""
        cluster = _cluster(loaded)
        for name in record.jobs.values():
            cluster.delete(name)


def _cluster(loaded: Loaded) -> Cluster:
    return connect(loaded.experiment.settings(KubernetesSettings))


def _jobs(loaded: Loaded) -> list[Job]:
    return build_jobs(loaded, recipe=objects.recipe_path(loaded))


def job_body(loaded: Loaded, job: Job) -> dict[str, Any]:
    """The object that runs a job: a Job, or for training a TrainJob if the experiment says so."""
    if job.kind == "train" and loaded.experiment.settings(KubernetesSettings).kind == "trainjob":
        return trainjob(loaded, job)
    return objects.job_object(loaded, job)


def _check_paths(loaded: Loaded, settings: KubernetesSettings) -> None:
    experiment = loaded.experiment
    if not PurePosixPath(experiment.workdir).is_absolute():
        raise ConfigError(
            f"workdir = {experiment.workdir!r} must be an absolute path in the pod, for example /data/acc: pods do not "
            "share a current folder"
        )
    if not settings.volumes:
        raise ConfigError(
            'kubernetes.volumes is empty: give a claim and its path in the pod, for example {acc-data = "/data"}'
        )
    out = str(PurePosixPath(experiment.workdir) / experiment.out)
    if not any(PurePosixPath(out).is_relative_to(mount) for mount in settings.volumes.values()):
        mounts = ", ".join(settings.volumes.values())
        raise ConfigError(f"out = {out} is on no volume ({mounts}) and would be lost with the pod: move it below one")


def _check_kind(settings: KubernetesSettings) -> None:
    if settings.kind == "trainjob" and (settings.host_network or settings.priority_class):
        key = "host_network" if settings.host_network else "priority_class"
        raise ConfigError(
            f"kubernetes.{key} needs kubernetes.kind = 'job': a TrainJob has no such field; set it in the "
            f"ClusterTrainingRuntime {settings.runtime}"
        )
