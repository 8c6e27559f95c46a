"""Every parallel layout against one process: losses and gradients, many layouts in one set of processes.

python tests/layout_matrix.py         prints the table of differences (about 5 minutes on 2 cores)
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from commands import free_port

NUM_STEPS = 5
SGD = ("optimizer.kind=sgd", "optimizer.learning_rate=0.3", "optimizer.min_learning_rate=0.3")


@dataclass(frozen=True)
class Case:
    """A layout by its settings, and how many processes it takes."""

    name: str
    world: int
    overrides: tuple[str, ...] = ()
    compare_gradients: bool = True


def _case(name: str, world: int, **sizes: Any) -> Case:
    return Case(name, world, tuple(f"parallel.{key}={value}" for key, value in sizes.items()))


SINGLES = [
    _case("TP2 (SP)", 2, tensor=2),
    _case("TP2 ETP2", 2, tensor=2, expert_tensor=2),
    _case("EP2", 2, expert=2),
    _case("CP2", 2, context=2),
    _case("PP2", 2, pipeline=2),
    _case("PP2 VPP2", 2, pipeline=2, virtual_pipeline=2),
    _case("DP2", 2),
    _case("DP2 overlap", 2, overlap_grad_reduce="true"),
    Case("EP2 allgather", 2, ("parallel.expert=2", "moe.dispatcher=allgather")),
    Case("EP2, head recomputes", 2, ("parallel.expert=2", "loss.plan=recompute")),
    Case("EP2 full recompute", 2, ("parallel.expert=2", "memory.recompute=full")),
    Case(
        "CP2 selective recompute", 2,
        ("parallel.context=2", "memory.recompute=selective", "memory.recompute_modules=['core_attn', 'layernorm']"),
    ),
]  # fmt: skip
PAIRS = [
    _case("TP2 CP2", 4, tensor=2, context=2),
    _case("TP2 EP2", 4, tensor=2, expert=2),
    _case("TP2 PP2", 4, tensor=2, pipeline=2),
    _case("TP2 DP2", 4, tensor=2),
    _case("CP2 EP2", 4, context=2, expert=2),
    _case("CP2 PP2", 4, context=2, pipeline=2),
    _case("CP2 DP2", 4, context=2),
    _case("EP2 PP2", 4, expert=2, pipeline=2),
    _case("EP2 DP4", 4, expert=2),
    _case("PP2 DP2", 4, pipeline=2),
    _case("CP4", 4, context=4),
    _case("TP2 CP2 EP4", 4, tensor=2, context=2, expert=4),
]

# the distributed optimizer takes AdamW alone and leaves a rank only its share of the summed gradients: these are held
# by losses and by the gradient norm of every step, which shows a wrong scale that Adam would hide
ADAM = ("optimizer.kind=adamw", "optimizer.learning_rate=1e-3", "optimizer.min_learning_rate=1e-3")
OVERLAPPED = (
    *ADAM,
    "parallel.distributed_optimizer=true",
    "parallel.overlap_grad_reduce=true",
    "parallel.overlap_param_gather=true",
)


def _sharded(name: str, world: int, *overrides: str) -> Case:
    return Case(f"{name}, distributed optimizer overlapped", world, (*OVERLAPPED, *overrides), compare_gradients=False)


SHARDED_SINGLES = [
    Case("DP2, distributed optimizer", 2, (*ADAM, "parallel.distributed_optimizer=true"), compare_gradients=False),
    _sharded("DP2", 2),
]
SHARDED_PAIRS = [
    _sharded("DP4", 4),
    _sharded("EP2 DP4", 4, "parallel.expert=2"),
    _sharded("CP2 DP2", 4, "parallel.context=2"),
    _sharded("TP2 DP2", 4, "parallel.tensor=2"),
    _sharded("PP2 DP2", 4, "parallel.pipeline=2"),
]


@dataclass
class Result:
    """What a layout computed, or how far it was from the reference."""

    losses: list[float] = field(default_factory=list)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)  # Hugging Face names, whole tensors
    gradient_difference: float = 0.0  # largest over parameters, relative to the largest entry of that parameter's
    norms: list[float] = field(default_factory=list)  # of the gradient of every step


Measure = Callable[[Path, Case, "Result | None"], "Result"]


def run_cases(
    recipe: Path, cases: Sequence[Case], reference: Result | None, measure: Measure | None = None
) -> dict[str, Result]:
    """Run layouts of one world size in one set of processes.

    By default each trains, and with a reference its gradients are compared to that; or each is measured otherwise.
    """
    world = cases[0].world
    assert all(case.world == world for case in cases)
    ports = [free_port() for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        if reference is not None:
            torch.save((reference.losses, reference.gradients), Path(folder) / "reference.pt")
        context = mp.start_processes(
            _worker,
            (world, recipe, cases, ports, Path(folder), measure or run_case),
            nprocs=world,
            join=False,
            start_method="spawn",
        )
        assert context is not None
        try:
            while not context.join(timeout=600):
                pass
        finally:
            for process in context.processes:
                process.kill()
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
    """Train NUM_STEPS in this process's share of a layout, looking at the first step's gradients."""
    from acc_megatron.distributed import own_ranks, process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config
    from acc_megatron.resume import restore
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    config = load_config(recipe, [*SGD, *case.overrides])
    check_job(config, case.world)
    result = Result()
    with process_groups(config.parallel, timeout_seconds=120) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        prepare = trainer.optimizer.prepare_grads  # the step calls it when gradients are summed over ranks

        def look_then_prepare() -> Any:
            if trainer.step == 0 and case.compare_gradients:
                if reference is None:
                    result.gradients = whole_gradients(trainer)
                else:
                    result.gradient_difference = difference(trainer, reference, own_ranks())
            return prepare()

        trainer.optimizer.prepare_grads = look_then_prepare
        for _ in range(NUM_STEPS):
            values = train_step(trainer)
            result.losses.append(values["loss"])
            result.norms.append(values["grad_norm"])
    return result


def whole_gradients(trainer: Any) -> dict[str, torch.Tensor]:
    """Gradients under Hugging Face names; for one process, which holds every parameter whole."""
    from acc_megatron.checkpoint.weight_map import entry_for

    gradients = {}
    for name, parameter in trainer.models[0].named_parameters():
        entry = entry_for(name, 0, 0, trainer.config.model)
        parts = entry.part(parameter.main_grad)
        gradients |= {hf: part.clone() for hf, part in zip(entry.hf_names, parts, strict=True)}
    return gradients


def difference(trainer: Any, reference: Result, ranks: Any) -> float:
    """This rank's shards against the same shards of the reference, relative to each parameter's largest entry."""
    from acc_megatron.checkpoint.weight_map import entry_for, own_range

    largest = 0.0
    model, layout = trainer.config.model, trainer.layout
    for chunk in trainer.models:
        first_layer = chunk.decoder.layers[0].layer_number - 1
        first_expert = ranks.expert * (model.num_experts // layout.expert)
        for name, parameter in chunk.named_parameters():
            entry = entry_for(name, first_layer, first_expert, model)
            whole = [reference.gradients[hf] for hf in entry.hf_names]
            expected = entry.join(*(t[own_range(entry.cut, tuple(t.shape), layout, ranks)] for t in whole))
            scale = max(float(tensor.abs().max()) for tensor in whole)
            error = float((parameter.main_grad - expected).abs().max())
            # an expert that no token reached has no gradient at all, in any layout
            largest = max(largest, error / scale if scale else error)
    return largest


def one_process(recipe: Path) -> tuple[Result, Result]:
    """The references: the same steps in one process, with SGD and with AdamW."""
    results = run_cases(recipe, [Case("SGD", 1), Case("AdamW", 1, ADAM, compare_gradients=False)], None)
    return results["SGD"], results["AdamW"]


def loss_difference(result: Result, reference: Result) -> float:
    """The largest difference of a step's loss."""
    return max(abs(a - b) for a, b in zip(result.losses, reference.losses, strict=True))


def norm_difference(result: Result, reference: Result) -> float:
    """The largest relative difference of a step's gradient norm."""
    return max(abs(a / b - 1) for a, b in zip(result.norms, reference.norms, strict=True))


def main() -> None:
    """Print the table of differences as Markdown."""
    from make_inputs import make_recipe

    with tempfile.TemporaryDirectory() as folder:
        recipe = make_recipe(Path(folder))
        sgd, adamw = one_process(recipe)
        print(
            "| layout | processes | largest loss difference | largest relative gradient difference |\n|---|---|---|---|"
        )
        for cases in (SINGLES, PAIRS):
            for name, result in run_cases(recipe, cases, sgd).items():
                loss = loss_difference(result, sgd)
                print(f"| {name} | {cases[0].world} | {loss:.1e} | {result.gradient_difference:.1e} |", flush=True)
        for cases in (SHARDED_SINGLES, SHARDED_PAIRS):
            for name, result in run_cases(recipe, cases, None).items():
                loss, norm = loss_difference(result, adamw), norm_difference(result, adamw)
                print(f"| {name} | {cases[0].world} | {loss:.1e} | {norm:.1e} (norm) |", flush=True)


if __name__ == "__main__":
    main()
