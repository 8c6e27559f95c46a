"""Losses and gradients of parallel layouts, compared with one process; many layouts in one set of processes.

PYTHONPATH=tests python -m support.layout_matrix [dense]  prints the table of differences (about 5 minutes on 2 cores)
"""

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from support.commands import free_port
from support.gloo import start_and_join
from support.layout_cases import (
    ADAM,
    PAIRS,
    SGD,
    SHARDED_PAIRS,
    SHARDED_SINGLES,
    SINGLES,
    SUPERVISED_PAIRS,
    SUPERVISED_SINGLES,
    Case,
    without_experts,
)

# with tied embeddings and YaRN; the longest document has more than twice the original window
DENSE: dict[str, Any] = {
    "family": "qwen3",
    "tie_word_embeddings": True,
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128},
}


@dataclass
class Result:
    """What a layout computed, or its difference from the reference."""

    losses: list[float] = field(default_factory=list)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)  # complete tensors by Hugging Face name
    gradient_difference: float = 0.0  # largest over parameters, relative to the parameter's largest gradient
    norms: list[float] = field(default_factory=list)  # gradient norm of every step


Measure = Callable[[Path, Case, "Result | None"], "Result"]


def run_cases(
    recipe: Path,
    cases: Sequence[Case],
    reference: Result | None,
    measure: Measure | None = None,
    *,
    is_fresh: bool = False,
) -> dict[str, Result]:
    """Run layouts of one world size in one set of processes, and return their results by name.

    By default each case trains, and its gradients are compared with the reference if there is one; `measure` replaces
    that. With `is_fresh` the processes import Megatron themselves instead of being forked after its import.
    """
    world = cases[0].world
    assert all(case.world == world for case in cases)
    ports = [free_port() for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        if reference is not None:
            torch.save((reference.losses, reference.gradients), Path(folder) / "reference.pt")
        start_and_join(
            _worker,
            world,
            world,
            recipe,
            cases,
            ports,
            Path(folder),
            measure or run_case,
            timeout=900,
            is_fresh=is_fresh,
        )
        results = {}
        for number, case in enumerate(cases):
            parts = [torch.load(Path(folder) / f"{number}-{rank}.pt", weights_only=True) for rank in range(world)]
            results[case.name] = Result(parts[0][0], parts[0][1], max(part[2] for part in parts), parts[0][3])
        return results


def _worker(
    rank: int, world: int, recipe: Path, cases: Sequence[Case], ports: list[int], folder: Path, measure: Measure
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    reference = None
    if (folder / "reference.pt").is_file():
        reference = Result(*torch.load(folder / "reference.pt", weights_only=True))
    for number, (case, port) in enumerate(zip(cases, ports, strict=True)):
        os.environ["MASTER_PORT"] = str(port)
        result = measure(recipe, case, reference)
        parts = (result.losses, result.gradients, result.gradient_difference, result.norms)
        torch.save(parts, folder / f"{number}-{rank}.pt")


def run_case(recipe: Path, case: Case, reference: Result | None) -> Result:
    """Train on this rank of a layout and keep, or compare, the first step's gradients."""
    from acc_megatron.mesh.process_groups import own_ranks, process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config
    from acc_megatron.training.resume import restore
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*SGD, *case.overrides])
    check_job(config, case.world)
    result = Result()
    with small_buckets(), process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        prepare = trainer.optimizer.prepare_grads  # called after the gradients are summed over the ranks

        def inspect_then_prepare() -> Any:
            if trainer.step == 0 and case.compare_gradients:
                if reference is None:
                    result.gradients = complete_gradients(trainer)
                else:
                    result.gradient_difference = difference(trainer, reference, own_ranks())
            return prepare()

        trainer.optimizer.prepare_grads = inspect_then_prepare
        for _ in range(case.num_steps):
            step = train_step(trainer)
            result.losses.append(step.loss)
            result.norms.append(step.grad_norm)
    return result


@contextlib.contextmanager
def small_buckets() -> Iterator[None]:
    """Several buckets of gradients and parameters, as in a real model; here Megatron's default would make one."""
    from acc_megatron.training import trainer

    small = functools.partial(trainer.DistributedDataParallelConfig, bucket_size=100_000)
    with mock.patch.object(trainer, "DistributedDataParallelConfig", small):
        yield


def complete_gradients(trainer: Any) -> dict[str, torch.Tensor]:
    """Return gradients by Hugging Face name; only for one process, which has every parameter completely."""
    from acc_megatron.model.families import FAMILIES

    gradients = {}
    model = trainer.config.model
    weights = FAMILIES[model.family].weight_map(model)
    for name, parameter in trainer.models[0].named_parameters():
        entry = weights.entry(name)
        parts = entry.separate(parameter.main_grad)
        gradients |= {hf: part.clone() for hf, part in zip(entry.hf_names, parts, strict=True)}
    return gradients


def difference(trainer: Any, reference: Result, ranks: Any) -> float:
    """Compare this rank's gradients with its parts of the reference, relative to each parameter's largest gradient."""
    from acc_megatron.model.families import FAMILIES
    from acc_megatron.model.weight_map import rank_part

    largest = 0.0
    model, layout = trainer.config.model, trainer.layout
    weights = FAMILIES[model.family].weight_map(model)
    for chunk in trainer.models:
        first_layer = chunk.decoder.layers[0].layer_number - 1
        first_expert = ranks.expert * (model.num_experts // layout.expert)
        for name, parameter in chunk.named_parameters():
            entry = weights.entry(name, first_layer=first_layer, first_expert=first_expert)
            complete = [reference.gradients[hf] for hf in entry.hf_names]
            expected = entry.join(*(t[rank_part(entry.split, tuple(t.shape), layout, ranks)] for t in complete))
            scale = max(float(tensor.abs().max()) for tensor in complete)
            error = float((parameter.main_grad - expected).abs().max())
            # an expert that no token reaches has a gradient of 0 in every layout
            largest = max(largest, error / scale if scale else error)
    return largest


def one_process(recipe: Path) -> tuple[Result, Result]:
    """Return the references: the same steps in one process, with SGD and with AdamW."""
    results = run_cases(recipe, [Case("SGD", 1), Case("AdamW", 1, ADAM, compare_gradients=False)], None)
    return results["SGD"], results["AdamW"]


def loss_difference(result: Result, reference: Result) -> float:
    """Return the largest difference of a step's loss; the reference may have more steps."""
    expected = reference.losses[: len(result.losses)]
    return max(abs(a - b) for a, b in zip(result.losses, expected, strict=True))


def norm_difference(result: Result, reference: Result) -> float:
    """Return the largest relative difference of a step's gradient norm; the reference may have more steps."""
    expected = reference.norms[: len(result.norms)]
    return max(abs(a / b - 1) for a, b in zip(result.norms, expected, strict=True))


def main() -> None:
    """Print the table of differences as Markdown."""
    from support.make_inputs import make_recipe

    model = DENSE if sys.argv[1:] == ["dense"] else {}
    choose = without_experts if model else list[Case]
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_recipe(Path(folder), **model)
        sgd, adamw = one_process(recipe)
        print(
            "| layout | processes | largest loss difference | largest relative gradient difference |\n|---|---|---|---|"
        )
        for cases in map(choose, (SINGLES, PAIRS, SUPERVISED_SINGLES, SUPERVISED_PAIRS)):
            for name, result in run_cases(recipe, cases, sgd).items():
                loss = loss_difference(result, sgd)
                print(f"| {name} | {cases[0].world} | {loss:.1e} | {result.gradient_difference:.1e} |", flush=True)
        for cases in map(choose, (SHARDED_SINGLES, SHARDED_PAIRS)):
            for name, result in run_cases(recipe, cases, None).items():
                loss, norm = loss_difference(result, adamw), norm_difference(result, adamw)
                print(f"| {name} | {cases[0].world} | {loss:.1e} | {norm:.1e} (norm) |", flush=True)


if __name__ == "__main__":
    main()
