"""The section [slurm] of an experiment file."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """Settings of sbatch and srun. A job is *large* if it trains or has GPUs."""

    account: str | None = None
    partition: str | None = None
    cpu_partition: str | None = None  # for jobs without GPUs; default: partition
    time: str = "04:00:00"  # limit of large jobs
    cpu_time: str = "04:00:00"  # limit of the other jobs
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes that no job may use
    memory: str | None = "0"  # per node, for large jobs; 0 requests all of it
    cpu_memory: str | None = None  # per node, for the other jobs
    cpus_per_task: int | None = None
    exclusive: bool = True  # training jobs do not share their nodes
    container_image: str | None = None  # for pyxis: a .sqsh file, or registry#image
    container_mounts: list[str] = field(default_factory=list)  # host:container
    retries: int = 3  # after failures; stops before the time limit, preemptions and lost nodes do not count
    extra: dict[str, str] = field(default_factory=dict)  # further sbatch flags
