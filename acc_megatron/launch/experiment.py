"""The experiment file: which jobs to run, in typed sections, and the settings of each launch target."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from acc_megatron.config import Config

S = TypeVar("S")
JOBS = ("compile", "convert", "train", "export", "eval")  # in the order in which they run


@dataclass(frozen=True, kw_only=True)
class CompileSection:
    """`acc-megatron compile`: trajectories to triples."""

    inputs: list[str]
    options: list[str] = field(default_factory=list)  # as on the command line


@dataclass(frozen=True, kw_only=True)
class ConvertSection:
    """`acc-megatron convert --shard` in a job array, then `merge`; on one machine `convert --workers`."""

    shards: int = 1
    inputs: list[str] = field(default_factory=list)  # default: the triples that compile writes
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TrainSection:
    """`acc-megatron train` on every node under torchrun."""

    recipe: str  # relative to the experiment file
    overrides: list[str] = field(default_factory=list)  # key=value of the recipe
    dataset: str | None = None  # default: the dataset that convert writes
    nodes: int = 1
    processes_per_node: int = 8
    device: Literal["gpu", "cpu"] = "gpu"  # gpu: one process per GPU
    check_gpu_free_gib: float = 70.0  # required free memory of each GPU before the job starts; 0 disables the check
    check_ring: bool = True  # run an all-reduce over all ranks before the job
    check_ring_gb_per_second: float = 0.0  # minimum rate of that all-reduce; 0 only prints the rate
    check_selftest: Literal["off", "quick", "full"] = "off"  # `acc-megatron selftest` on all ranks before the job
    grace_seconds: int = 600  # time for the checkpoint, between the warning and the end


@dataclass(frozen=True, kw_only=True)
class ExportSection:
    """`acc-megatron export` of the run's last checkpoint."""

    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EvalSection:
    """`acc-megatron eval` of the export, or of an evaluation file whose models vLLM may serve inside the job."""

    run: str | None = None  # evaluation file, as a path where the job runs; default: the export
    gpus: int = 0
    image: str | None = None  # a container with vLLM and acc-megatron; default: the image of the other jobs
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """NCCL settings; the defaults suit H100 nodes with one InfiniBand adapter per GPU."""

    socket_interface: str | None = None  # for bootstrap, for example eth0; default: NCCL and gloo choose one
    infiniband_adapters: str | None = None  # NCCL_IB_HCA, for example mlx5; default: all adapters that NCCL finds
    infiniband_timeout: int = 22  # 4.096 us x 2^22 = 17 s, which is longer than a link needs to retrain
    debug: Literal["VERSION", "WARN", "INFO"] = "WARN"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One file from trajectories to scores; a job whose section is missing does not run.

    The file also has one section per launch target (`acc_megatron.launch.targets.registry`).
    """

    name: str
    out: str  # folder of triples, dataset, run, export, eval and logs
    workdir: str = "."  # working folder of the commands; every node must see it at the same path
    launch_dir: str = "runs/launch"  # on the machine that launches: scripts, manifests and the launch record
    python: str = "python"  # an interpreter with acc-megatron installed, where the jobs run
    compile: CompileSection | None = None
    convert: ConvertSection | None = None
    train: TrainSection | None = None
    export: ExportSection | None = None
    eval: EvalSection | None = None
    network: NetworkSettings = field(default_factory=NetworkSettings)
    environment: dict[str, str] = field(default_factory=dict)  # takes precedence over every variable set for you

    def settings(self, kind: type[S]) -> S:
        """The section of a launch target, by the class of its settings."""
        return next(value for value in vars(self).values() if isinstance(value, kind))


@dataclass(frozen=True)
class Loaded:
    """An experiment that passed every check that needs no cluster."""

    experiment: Experiment
    file: Path
    recipe: Path | None
    config: Config | None  # of the training job
    jobs: tuple[str, ...]  # the chosen ones, a subset of JOBS in its order

    @property
    def folder(self) -> Path:
        """The folder with scripts, manifests and the launch record, on the machine that launches."""
        return Path(self.experiment.launch_dir).absolute() / self.experiment.name
