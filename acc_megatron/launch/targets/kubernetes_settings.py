"""The section [kubernetes] of an experiment file."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings:
    """Settings of the pods. A pod is *large* if it trains or has GPUs; all pods mount the same volumes."""

    kind: Literal["job", "trainjob"] = "job"  # trainjob: Kubeflow Trainer up to 2.1, through nemo-run
    namespace: str = "default"
    image: str | None = None  # of every job, except an eval that has an image of its own
    volumes: dict[str, str] = field(default_factory=dict)  # persistent volume claim -> path in the pod
    secrets: dict[str, str] = field(default_factory=dict)  # environment variable -> secret/key
    image_pull_secrets: list[str] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)  # of large pods
    tolerations: list[str] = field(default_factory=lambda: ["nvidia.com/gpu"])  # keys of taints
    labels: dict[str, str] = field(default_factory=dict)  # of all objects and pods, for example a Kueue queue
    rdma: dict[str, str] = field(default_factory=dict)  # resource -> count per training pod
    shared_memory: str = "64Gi"  # /dev/shm of a large pod
    cpus: str = "64"  # of a large pod
    memory: str = "512Gi"  # of a large pod
    small_cpus: str = "8"  # of any other pod
    small_memory: str = "32Gi"  # of any other pod
    host_network: bool = False
    service_account: str | None = None
    priority_class: str | None = None
    retries: int = 3  # failures of the whole job; evicted pods do not count
    port: int = 29500
    runtime: str = "torch-distributed"  # of a TrainJob; its terminationGracePeriodSeconds must leave time for a save
