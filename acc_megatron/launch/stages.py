"""The stages of an experiment as commands: what each runs, what it waits for, and how often it runs at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from acc_megatron.launch.experiment import Experiment, Loaded, TrainStage

VERBS = "acc_megatron"


@dataclass(frozen=True)
class Stage:
    """One job: a command of the experiment's interpreter, run in its working folder."""

    name: str
    command: list[str]
    kind: Literal["train", "other"] = "other"
    array: int = 1  # so many at once, each told its number by the cluster
    nodes: int = 1
    gpus_per_node: int = 0
    needs: tuple[str, ...] = ()
    image: str | None = None  # in place of the cluster's

    @property
    def is_large(self) -> bool:
        """Whether it takes the share of a node that training takes."""
        return self.kind == "train" or self.gpus_per_node > 0


def build_stages(loaded: Loaded, *, one_machine: bool = False, recipe: str | None = None) -> list[Stage]:
    """The chosen stages in order, each waiting for the one before; `recipe` is its path where the job runs.

    On one machine shards are the processes of one conversion: the bytes are the same.
    """
    stages: list[Stage] = []
    for stage in _stages(loaded, one_machine, recipe or str(loaded.recipe)):
        command = [loaded.experiment.python, "-m", *stage.command]
        stages.append(replace(stage, command=command, needs=tuple(last.name for last in stages[-1:])))
    return stages


def run_dir(experiment: Experiment) -> str:
    """The folder of the training run."""
    return f"{PurePosixPath(experiment.out) / 'run'}"


def _stages(loaded: Loaded, one_machine: bool, recipe: str) -> Iterator[Stage]:
    experiment, out = loaded.experiment, PurePosixPath(loaded.experiment.out)
    for name in loaded.stages:
        if name == "compile" and (compiling := experiment.compile):
            yield Stage(name, [VERBS, name, *compiling.inputs, "--out", f"{out / 'triples'}", *compiling.options])
        elif name == "convert":
            yield from _convert(experiment, out, one_machine)
        elif name == "train" and (train := experiment.train):
            gpus = train.processes_per_node if train.device == "gpu" else 0
            command = _train_command(experiment, train, recipe)
            yield Stage(name, command, kind="train", nodes=train.nodes, gpus_per_node=gpus)
        elif name == "export" and (export := experiment.export):
            yield Stage(name, [VERBS, name, run_dir(experiment), "--out", f"{out / 'export'}", *export.options])
        elif name == "eval" and (evaluation := experiment.eval):
            target = evaluation.run or f"{out / 'export'}"
            command = [VERBS, name, target, "--out", f"{out / 'eval'}", *evaluation.options]
            yield Stage(name, command, gpus_per_node=evaluation.gpus, image=evaluation.image)


def _convert(experiment: Experiment, out: PurePosixPath, one_machine: bool) -> Iterator[Stage]:
    assert experiment.convert is not None
    step, dataset = experiment.convert, f"{out / 'dataset'}"
    command = [VERBS, "convert", *(step.inputs or [f"{out / 'triples'}"]), "--out", dataset, *step.options]
    if one_machine:
        yield Stage("convert", [*command, "--workers", str(step.shards)])
        return
    yield Stage("convert", [*command, "--shard", str(step.shards)], array=step.shards)
    yield Stage("merge", [VERBS, "merge", dataset])


def _train_command(experiment: Experiment, train: TrainStage, recipe: str) -> list[str]:
    """The node program with its checks, then the training verb with the paths that the experiment decides."""
    out = PurePosixPath(experiment.out)
    command = ["acc_megatron.launch.node", "--processes", str(train.processes_per_node)]
    command += ["--run-dir", run_dir(experiment), "--logs", f"{out / 'logs'}"]
    command += ["--grace-seconds", str(train.grace_seconds)]
    if train.device == "gpu":
        command += ["--gpus", str(train.processes_per_node), "--gpu-free-gib", f"{train.check_gpu_free_gib:g}"]
    if train.check_ring:
        command += ["--ring-gb-per-second", f"{train.check_ring_gb_per_second:g}"]
    paths = [f"data.path={train.dataset or out / 'dataset'}", f"train.run_dir={run_dir(experiment)}"]
    return [*command, "--", "train", recipe, *train.overrides, *paths]
