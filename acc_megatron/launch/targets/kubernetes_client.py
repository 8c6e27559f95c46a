"""The calls to a Kubernetes API server, through the package kubernetes: check, create, state, logs and delete."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.launch.targets.kubernetes_settings import KubernetesSettings
from acc_megatron.optional import missing_package

TRAINJOB = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
ENDED = ("SUCCEEDED", "FAILED", "GONE")


def connect(settings: KubernetesSettings) -> "Cluster":
    """The cluster of the current kubeconfig context; raises EnvironmentProblem without one."""
    path = Path(os.environ.get("KUBECONFIG", Path.home() / ".kube" / "config"))
    if not path.is_file() and IN_CLUSTER not in os.environ:
        raise EnvironmentProblem(f"no kubeconfig at {path}: set KUBECONFIG, or use --dry-run and then kubectl apply")
    try:
        import kubernetes
    except ModuleNotFoundError as error:
        raise missing_package("kubernetes", "launching on Kubernetes") from error
    try:
        if path.is_file():
            kubernetes.config.load_kube_config(str(path))
        else:
            kubernetes.config.load_incluster_config()
    except kubernetes.config.ConfigException as error:
        raise EnvironmentProblem(f"the kubeconfig {path} cannot be used: {error}") from None
    return Cluster(kubernetes, settings)


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, kubernetes: Any, settings: KubernetesSettings) -> None:
        self.namespace, self.is_trainjob = settings.namespace, settings.kind == "trainjob"
        self._error = kubernetes.client.ApiException
        self._jobs = kubernetes.client.BatchV1Api()
        self._core = kubernetes.client.CoreV1Api()
        self._custom = kubernetes.client.CustomObjectsApi()

    def check(self, objects: Sequence[dict[str, Any]]) -> None:
        """Let the server validate every object in a dry run; unknown fields are errors. Raises ConfigError."""
        for body in objects:
            self._create(body, dry_run="All", field_validation="Strict")

    def create(self, objects: Sequence[dict[str, Any]]) -> None:
        """Create objects; replaces a ConfigMap or Service of the same name, but never a job."""
        for body in objects:
            kind, name = body["kind"], body["metadata"]["name"]
            if kind in ("ConfigMap", "Service"):
                self._quietly(getattr(self._core, f"delete_namespaced_{_snake(kind)}"), name)
            self._create(body, field_validation="Strict")

    def _create(self, body: dict[str, Any], **options: str) -> None:
        kind, name = body["kind"], body["metadata"]["name"]
        try:
            if kind == "Job":
                self._jobs.create_namespaced_job(self.namespace, body, **options)
            elif kind == "TrainJob":
                self._custom.create_namespaced_custom_object(**TRAINJOB, namespace=self.namespace, body=body, **options)
            else:
                getattr(self._core, f"create_namespaced_{_snake(kind)}")(self.namespace, body, **options)
        except self._error as error:
            if error.status == 409 and "dry_run" in options and kind in ("ConfigMap", "Service"):
                return
            advice = "; end it first: 'acc-megatron launch cancel'" if error.status == 409 else ""
            raise ConfigError(f"the cluster refuses {kind} {name}: {_reason(error)}{advice}") from None
        except OSError as error:
            raise EnvironmentProblem(f"the cluster cannot be reached: {error}") from None

    def state(self, name: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED, or GONE for a job that does not exist."""
        try:
            if self.is_trainjob and name.rpartition("-")[2] == "train":
                found = self._custom.get_namespaced_custom_object(**TRAINJOB, namespace=self.namespace, name=name)
                conditions, active = found.get("status", {}).get("conditions", []), 0
            else:
                status = self._jobs.read_namespaced_job(name, self.namespace).status
                conditions = [{"type": c.type, "status": c.status} for c in (status and status.conditions) or []]
                active = (status and status.active) or 0
        except self._error as error:
            if error.status == 404:
                return "GONE"
            raise EnvironmentProblem(f"the cluster does not report the state of {name}: {_reason(error)}") from None
        true = {condition["type"] for condition in conditions if condition["status"] == "True"}
        if "Complete" in true:
            return "SUCCEEDED"
        return "FAILED" if "Failed" in true else "RUNNING" if active else "PENDING"

    def wait(self, name: str, *, poll_seconds: float, say: Callable[[str], None]) -> str:
        """Wait until a job ends and return its state; `say` gets a line for every change of state."""
        before = ""
        while True:
            state = self.state(name)
            if state != before:
                say(f"{name}: {state}")
            if state in ENDED:
                return state
            before = state
            time.sleep(poll_seconds)

    def logs(self, name: str) -> str:
        """The logs of the pods of a job, in the order of the pod names."""
        selector = f"job-name={name}"
        if self.is_trainjob and name.rpartition("-")[2] == "train":
            selector = f"jobset.sigs.k8s.io/jobset-name={name}"
        try:
            pods = self._core.list_namespaced_pod(self.namespace, label_selector=selector).items
            names = sorted(pod.metadata.name for pod in pods)
            texts = {pod: self._core.read_namespaced_pod_log(pod, self.namespace) for pod in names}
        except self._error as error:
            raise EnvironmentProblem(f"no logs of {name}: {_reason(error)}") from None
        if not texts:
            raise EnvironmentProblem(f"{name} has no pods yet: 'acc-megatron launch status' shows its state")
        return "".join(f"==> {pod} <==\n{text}" for pod, text in texts.items())

    def delete(self, name: str) -> None:
        """Delete a job and its pods; does nothing if the job does not exist."""
        if self.is_trainjob and name.rpartition("-")[2] == "train":
            self._quietly(lambda found, space: self._custom.delete_namespaced_custom_object(
                **TRAINJOB, namespace=space, name=found), name)  # fmt: skip
        else:
            self._quietly(self._jobs.delete_namespaced_job, name, propagation_policy="Background")

    def _quietly(self, delete: Callable[..., Any], name: str, **options: str) -> None:
        try:
            delete(name, self.namespace, **options)
        except self._error as error:
            if error.status != 404:
                raise EnvironmentProblem(f"the cluster cannot delete {name}: {_reason(error)}") from None


def _snake(kind: str) -> str:
    return {"ConfigMap": "config_map", "Service": "service"}[kind]


def _reason(error: Any) -> str:
    text = str(error.body or error.reason)
    return f"{error.status} {' '.join(text.split())[:600]}"
