"""The jobs of an experiment as commands: what each job runs, what it waits for, and how many copies run at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from acc_megatron.launch.experiment import Experiment, Loaded, TrainSection

PACKAGE = "acc_megatron"


@dataclass(frozen=True)
class Job:
    """A command of the experiment's interpreter, run in the experiment's working folder."""

    name: str
    command: list[str]
    kind: Literal["train", "other"] = "other"
    array: int = 1  # number of copies; the cluster gives each its index
    nodes: int = 1
    gpus_per_node: int = 0
    needs: tuple[str, ...] = ()
    image: str | None = None  # replaces the image of the target's settings

    @property
    def is_large(self) -> bool:
        """Whether it requests as much of a node as training does."""
        return self.kind == "train" or self.gpus_per_node > 0


def build_jobs(loaded: Loaded, *, one_machine: bool = False, recipe: str | None = None) -> list[Job]:
    """The chosen jobs in order, each waiting for the one before; `recipe` is its path where the job runs.

    On one machine the shards of a conversion are its worker processes: the output bytes are the same.
    """
    jobs: list[Job] = []
    for job in _jobs(loaded, one_machine, recipe or str(loaded.recipe)):
        command = [loaded.experiment.python, "-m", *job.command]
        jobs.append(replace(job, command=command, needs=tuple(last.name for last in jobs[-1:])))
    return jobs


def run_dir(experiment: Experiment) -> str:
    """The folder of the training run."""
    return f"{PurePosixPath(experiment.out) / 'run'}"


def _jobs(loaded: Loaded, one_machine: bool, recipe: str) -> Iterator[Job]:
    experiment, out = loaded.experiment, PurePosixPath(loaded.experiment.out)
    for name in loaded.jobs:
        if name == "compile" and (compiling := experiment.compile):
            yield Job(name, [PACKAGE, name, *compiling.inputs, "--out", f"{out / 'triples'}", *compiling.options])
        elif name == "convert":
            yield from _convert(experiment, out, one_machine)
        elif name == "train" and (train := experiment.train):
            gpus = train.processes_per_node if train.device == "gpu" else 0
            command = _train_command(experiment, train, recipe)
            yield Job(name, command, kind="train", nodes=train.nodes, gpus_per_node=gpus)
        elif name == "export" and (export := experiment.export):
            yield Job(name, [PACKAGE, name, run_dir(experiment), "--out", f"{out / 'export'}", *export.options])
        elif name == "eval" and (evaluation := experiment.eval):
            evaluated = evaluation.run or f"{out / 'export'}"
            command = [PACKAGE, name, evaluated, "--out", f"{out / 'eval'}", *evaluation.options]
            yield Job(name, command, gpus_per_node=evaluation.gpus, image=evaluation.image)


def _convert(experiment: Experiment, out: PurePosixPath, one_machine: bool) -> Iterator[Job]:
    assert experiment.convert is not None
    section, dataset = experiment.convert, f"{out / 'dataset'}"
    command = [PACKAGE, "convert", *(section.inputs or [f"{out / 'triples'}"]), "--out", dataset, *section.options]
    if one_machine:
        yield Job("convert", [*command, "--workers", str(section.shards)])
        return
    yield Job("convert", [*command, "--shard", str(section.shards)], array=section.shards)
    yield Job("merge", [PACKAGE, "merge", dataset])


def _train_command(experiment: Experiment, train: TrainSection, recipe: str) -> list[str]:
    """The node program with its checks, then `train` with the paths that follow from the experiment."""
    out = PurePosixPath(experiment.out)
    command = ["acc_megatron.launch.node", "--processes", str(train.processes_per_node)]
    command += ["--run-dir", run_dir(experiment), "--logs", f"{out / 'logs'}"]
    command += ["--grace-seconds", str(train.grace_seconds)]
    if train.device == "gpu":
        command += ["--gpus", str(train.processes_per_node), "--gpu-free-gib", f"{train.check_gpu_free_gib:g}"]
    if train.check_ring:
        command += ["--ring-gb-per-second", f"{train.check_ring_gb_per_second:g}"]
    if train.check_selftest != "off":
        command += ["--selftest", train.check_selftest]
    paths = [f"data.path={train.dataset or out / 'dataset'}", f"train.run_dir={run_dir(experiment)}"]
    return [*command, "--", "train", recipe, *train.overrides, *paths]
