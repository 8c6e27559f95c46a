"""Training as Kubeflow's TrainJob, built by nemo-run."""

from typing import Any

from acc_megatron.launch.environment import job_environment
from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.jobs import Job
from acc_megatron.launch.targets import kubernetes_objects as objects
from acc_megatron.launch.targets.kubernetes_settings import KubernetesSettings
from acc_megatron.launch.targets.nemo import import_nemo_run


def trainjob(loaded: Loaded, job: Job) -> dict[str, Any]:
    """The TrainJob of a training job; its runtime sets the same PET_ variables as our own Jobs do."""
    experiment, settings = loaded.experiment, loaded.experiment.settings(KubernetesSettings)
    import_nemo_run(loaded.folder)
    from nemo_run.core.execution.kubeflow import KubeflowExecutor

    class Offline(KubeflowExecutor):
        """Builds the body without a connection; our client sends it."""

        def _load_kube_clients(self) -> None:
            pass

    wanted = objects.resources(settings, job)["limits"]
    gpus = wanted.pop("nvidia.com/gpu", None)
    pod: dict[str, Any] = {"nodeSelector": dict(settings.node_selector)} if settings.node_selector else {}
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    executor = Offline(
        runtime_ref=settings.runtime,
        namespace=settings.namespace,
        image=settings.image,
        num_nodes=job.nodes,
        nprocs_per_node=experiment.train.processes_per_node if experiment.train else 1,
        gpus_per_node=int(gpus) if gpus else None,
        extra_resource_requests=dict(wanted),
        extra_resource_limits=dict(wanted),
        env_vars=job_environment(experiment),
        env_list=objects.secret_environment(settings),
        volumes=objects.volumes(loaded, job),
        volume_mounts=objects.volume_mounts(loaded, job),
        tolerations=objects.tolerations(settings) if job.gpus_per_node else [],
        labels={"app.kubernetes.io/part-of": experiment.name} | settings.labels,
        pod_labels=dict(settings.labels),
        image_pull_secrets=list(settings.image_pull_secrets),
        pod_spec_overrides=pod,
    )
    command = ["env", "-C", experiment.workdir, *job.command]  # a TrainJob has no field for the working folder
    return executor.get_job_body(objects.object_name(experiment, job), command)
