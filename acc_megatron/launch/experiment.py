"""The experiment file: what is to run, in typed sections, and where, one section a kind of cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from acc_megatron.compatibility import check_compatible
from acc_megatron.config import Config, from_dict, load_config, read_tree
from acc_megatron.errors import ConfigError
from acc_megatron.layout import build_layout, check_fit

STAGES = ("compile", "convert", "train", "export", "eval")  # in the order of the road


@dataclass(frozen=True, kw_only=True)
class CompileStage:
    """`acc-megatron compile`: trajectories to triples."""

    inputs: list[str]
    options: list[str] = field(default_factory=list)  # as on the command line


@dataclass(frozen=True, kw_only=True)
class ConvertStage:
    """`acc-megatron convert --shard` in an array of jobs, then `merge`; on one machine `convert --workers`."""

    shards: int = 1
    inputs: list[str] = field(default_factory=list)  # default: what compile writes
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TrainStage:
    """`acc-megatron train` on every node under torchrun."""

    recipe: str  # relative to the experiment file
    overrides: list[str] = field(default_factory=list)  # key=value of the recipe
    dataset: str | None = None  # default: what convert writes
    nodes: int = 1
    processes_per_node: int = 8
    device: Literal["gpu", "cpu"] = "gpu"  # gpu: one process a GPU
    check_gpu_free_gib: float = 70.0  # of each GPU, before the job; 0 switches the check off
    check_ring: bool = True  # an all-reduce over all ranks before the job
    check_ring_gb_per_second: float = 0.0  # refuse slower rings; 0 only prints the rate
    grace_seconds: int = 600  # for the checkpoint, between the warning and the end


@dataclass(frozen=True, kw_only=True)
class ExportStage:
    """`acc-megatron export` of the run's last checkpoint."""

    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EvalStage:
    """`acc-megatron eval` of the export, or of an evaluation file, whose models vLLM may serve inside the job."""

    run: str | None = None  # a file of models and benchmarks, its path where the job runs; default: the export
    gpus: int = 0
    image: str | None = None  # a container with vLLM and acc-megatron; default: that of the other stages
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What NCCL is told; the defaults suit H100 nodes with one InfiniBand adapter a GPU."""

    socket_interface: str | None = None  # for bootstrap, as eth0; none: NCCL and gloo look for one
    infiniband_adapters: str | None = None  # NCCL_IB_HCA, as mlx5; none: all that NCCL finds
    infiniband_timeout: int = 22  # 4.096 us x 2^22 = 17 s: survives a link that trains again
    debug: Literal["VERSION", "WARN", "INFO"] = "WARN"


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What sbatch and srun are told."""

    account: str | None = None
    partition: str | None = None
    cpu_partition: str | None = None  # for stages without GPUs; default: partition
    time: str = "04:00:00"
    cpu_time: str = "04:00:00"
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes to keep away from
    memory: str | None = "0"  # of a node that trains or has GPUs; 0 is all of it
    cpu_memory: str | None = None
    cpus_per_task: int | None = None
    exclusive: bool = True  # training nodes are not shared
    container_image: str | None = None  # pyxis: a .sqsh file, or registry#image
    container_mounts: list[str] = field(default_factory=list)  # host:container
    retries: int = 3  # after failures; stops before the time limit, preemptions and lost nodes do not count
    extra: dict[str, str] = field(default_factory=dict)  # further sbatch flags


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings:
    """What the pods are made of; every stage runs over the same volumes."""

    kind: Literal["job", "trainjob"] = "job"  # trainjob: Kubeflow Trainer up to 2.1, through nemo-run
    namespace: str = "default"
    image: str | None = None  # of every stage but an eval that names its own
    volumes: dict[str, str] = field(default_factory=dict)  # persistent volume claim -> path in the pod
    secrets: dict[str, str] = field(default_factory=dict)  # environment variable -> secret/key
    image_pull_secrets: list[str] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)  # of pods that train or have GPUs
    tolerations: list[str] = field(default_factory=lambda: ["nvidia.com/gpu"])  # keys of taints
    labels: dict[str, str] = field(default_factory=dict)  # of all objects and pods, as a Kueue queue
    rdma: dict[str, str] = field(default_factory=dict)  # resource -> count of a training pod
    shared_memory: str = "64Gi"  # /dev/shm of a pod that trains or has GPUs, whose also these are
    cpus: str = "64"
    memory: str = "512Gi"
    stage_cpus: str = "8"  # of other pods
    stage_memory: str = "32Gi"
    host_network: bool = False
    service_account: str | None = None
    priority_class: str | None = None
    retries: int = 3  # failures of the whole job; evicted pods do not count
    port: int = 29500
    runtime: str = "torch-distributed"  # of a trainjob; its terminationGracePeriodSeconds must leave time for a save


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One file from trajectories to scores; sections left out are stages that do not run."""

    name: str
    out: str  # triples, dataset, run, export, eval and logs go below it
    workdir: str = "."  # where commands run: a folder that every node sees at the same path
    launch_dir: str = "runs/launch"  # on the machine that launches: scripts, manifests and what was launched
    python: str = "python"  # the interpreter that holds acc-megatron, where the job runs
    compile: CompileStage | None = None
    convert: ConvertStage | None = None
    train: TrainStage | None = None
    export: ExportStage | None = None
    eval: EvalStage | None = None
    network: NetworkSettings = field(default_factory=NetworkSettings)
    environment: dict[str, str] = field(default_factory=dict)  # wins over everything set for you
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)


@dataclass(frozen=True)
class Loaded:
    """An experiment that passed every check that needs no cluster."""

    experiment: Experiment
    file: Path
    recipe: Path | None
    config: Config | None  # of the training stage
    stages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """What this machine keeps of the launch."""
        return Path(self.experiment.launch_dir).absolute() / self.experiment.name


def load_experiment(path: Path, overrides: Sequence[str] = (), stages: str | None = None) -> Loaded:
    """Read an experiment file and check its stages and its layout; raises ConfigError."""
    experiment = from_dict(Experiment, read_tree(path, overrides), str(path))
    if not experiment.name.replace("-", "").isalnum() or not experiment.name.islower():
        raise ConfigError(f"{path}: name = {experiment.name!r} must be small letters, digits and '-': it names jobs")
    chosen = _choose(experiment, stages, path)
    recipe = config = None
    if experiment.train is not None and "train" in chosen:
        recipe = path.parent / experiment.train.recipe
        config = _check_train(experiment.train, recipe, path)
    if experiment.convert is not None and experiment.convert.shards < 1:
        raise ConfigError(f"{path}: convert.shards = {experiment.convert.shards} must be at least 1")
    return Loaded(experiment, path, recipe, config, chosen)


def _choose(experiment: Experiment, stages: str | None, path: Path) -> tuple[str, ...]:
    present = [name for name in STAGES if getattr(experiment, name) is not None]
    asked = [name.strip() for name in stages.split(",")] if stages is not None else present
    for name in asked:
        if name not in STAGES:
            raise ConfigError(f"--stages: {name!r} is no stage; known: {', '.join(STAGES)}")
        if name not in present:
            raise ConfigError(f"--stages: {path} has no section [{name}]")
    if not asked:
        raise ConfigError(f"{path} describes no stage: add a section of {', '.join(STAGES)}")
    return tuple(name for name in STAGES if name in asked)


def _check_train(train: TrainStage, recipe: Path, path: Path) -> Config:
    if train.nodes < 1 or train.processes_per_node < 1:
        raise ConfigError(f"{path}: train.nodes and train.processes_per_node must be at least 1")
    config = load_config(recipe, train.overrides)
    world = train.nodes * train.processes_per_node
    try:
        layout = build_layout(config.parallel, world)
        check_fit(config, layout)
        check_compatible(config, layout, has_gpu=train.device == "gpu")
    except ConfigError as error:
        ranks = f"train.nodes {train.nodes} x train.processes_per_node {train.processes_per_node} = {world} ranks"
        raise ConfigError(f"{path}: {ranks} do not suit {recipe}: {error}") from None
    return config
