"""Training runs of the scaled-down 30B recipe in child processes, on Transformer Engine's spec or on the CPU spec.

A case is a layout or a setting by name. All cases of one spec and world size run one after another in one set of
processes, each from the same imported weights; one that fails leaves its traceback in its outcome.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest
import torch

from support import adapter_matrix, layout_matrix
from support.commands import ROOT, free_port
from support.gloo import start_and_join
from support.layout_matrix import Result, small_buckets
from support.make_inputs import TINY_MODEL, make_recipe

RECIPE_30B = ROOT / "tests" / "support" / "recipe_30b.toml"
NUM_STEPS, SAVED_STEP = 3, 2
TIMEOUT_SECONDS = 240
# every dim a multiple of 16, as FP8 products need, and four layers, so that two stages of two chunks exist
MODEL = TINY_MODEL | {"hidden_size": 32, "num_hidden_layers": 4, "num_experts": 8, "moe_intermediate_size": 32}
Spec = Literal["engine", "cpu"]


@dataclass(frozen=True)
class Case:
    """One training run: its settings, which override the recipe's, and what to do with it."""

    name: str
    world: int = 1
    settings: tuple[str, ...] = ()
    saves: bool = False  # after SAVED_STEP
    resumes: str | None = None  # `SPEC/CASE` whose checkpoint the run starts from
    compares_gradients: bool = True  # of the first step, which no distributed optimizer may have shared out
    fp8_over_float32: bool = False  # keep the parameters of an FP8 precision in float32
    num_steps: int = NUM_STEPS


@dataclass
class Outcome:
    """The result of a case: values of rank 0, the largest gradient difference of all ranks, and errors of all ranks."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)  # one process only: whole, Hugging Face names
    gradient_difference: float = 0.0
    # parameters of rank 0 whose gradient of the first step, before division by the tokens, has bfloat16 values only
    rounded: list[str] = field(default_factory=list)
    engine_modules: int = 0  # of Transformer Engine's classes on this rank
    calls: dict[str, int] = field(default_factory=dict)  # emulated functions that the wheel called
    offloaded: dict[str, int] = field(default_factory=dict)  # bytes of activations in host memory, by module
    error: str | None = None


def scaled_down(folder: Path, **model: Any) -> Path:
    """Write the 30B recipe with a small model and dataset; dispatcher, router, recompute and optimizer stay."""
    tiny = make_recipe(folder, **(model or MODEL)).read_text()
    replaced = {
        "data": f"path = '{folder / 'dataset'}'\nseq_length_tokens = 512",
        "model": tiny.partition("[model]\n")[2].partition("[data]")[0],
    }
    if model.get("family") == "qwen3":
        replaced["moe"] = ""  # a dense model has no router
    recipe, section = [], ""
    for line in RECIPE_30B.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            recipe += [line, *([replaced[section]] if section in replaced else [])]
        elif section not in replaced:
            recipe.append(line)
    path = folder / "scaled_down.toml"
    path.write_text("\n".join(recipe) + "\n")
    return path


def run_cases(recipe: Path, spec: Spec, cases: Sequence[Case], reference: Outcome | None = None) -> dict[str, Outcome]:
    """Run cases of one world size and return their outcomes by name; compare first gradients with the reference."""
    world = cases[0].world
    assert all(case.world == world for case in cases)
    ports = [free_port() for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        if reference is not None:
            torch.save(reference.gradients, Path(folder) / "reference.pt")
        arguments = (world, recipe, spec, cases, ports, Path(folder))
        # the engine's spec must be the process's first use of Megatron
        start_and_join(_worker, world, *arguments, timeout=900, is_fresh=spec == "engine")
        found = {}
        for number, case in enumerate(cases):
            ranks = [Outcome(**torch.load(Path(folder) / f"{number}-{r}.pt", weights_only=True)) for r in range(world)]
            errors = [f"rank {rank}: {outcome.error}" for rank, outcome in enumerate(ranks) if outcome.error]
            largest = max(outcome.gradient_difference for outcome in ranks)
            merged = dataclasses.replace(ranks[0], gradient_difference=largest, error="\n".join(errors) or None)
            found[case.name] = merged
        return found


def assert_equal_to(reference: Outcome, recipe: Path, cases: Sequence[Case], *, called: str) -> None:
    """Run cases on the engine's spec; losses and gradients equal the reference to 1e-5, and `called` was called."""
    for name, outcome in run_cases(recipe, "engine", cases, reference).items():
        assert outcome.error is None, f"{name}: {outcome.error}"
        assert outcome.losses == pytest.approx(reference.losses, abs=1e-5), name
        assert 0 < outcome.gradient_difference <= 1e-5, name
        assert outcome.calls[called] > 0 and outcome.engine_modules > 0, name


def _worker(
    rank: int, world: int, recipe: Path, spec: Spec, cases: Sequence[Case], ports: list[int], folder: Path
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    if spec == "engine":
        from support.engine.install import install

        install()
        from acc_megatron.mesh.process_groups import process_groups  # noqa: F401  # isort: split
        from support.engine.offloading import install_offloading

        install_offloading()
    reference = None
    if (folder / "reference.pt").is_file():
        reference = Result(gradients=torch.load(folder / "reference.pt", weights_only=True))
    for number, (case, port) in enumerate(zip(cases, ports, strict=True)):
        os.environ["MASTER_PORT"] = str(port)
        outcome = Outcome()
        try:
            _train(recipe, spec, case, reference, outcome)
        except Exception:  # any failure of the run is the case's outcome
            outcome.error = traceback.format_exc()
        torch.save(dataclasses.asdict(outcome), folder / f"{number}-{rank}.pt")


def run_dir(recipe: Path, spec: Spec, name: str) -> Path:
    """The run folder of a case."""
    return recipe.parent / "runs" / spec / name.replace(" ", "_").replace("/", "-")


def _settings(recipe: Path, spec: Spec, case: Case) -> list[str]:
    """Return the settings of a small run: one rank per axis, float32, a learning rate that changes the weights."""
    return [
        *("parallel.tensor=1", "parallel.context=1", "parallel.expert=1", "parallel.distributed_optimizer=false"),
        *("train.precision=float32", "train.global_batch_rows=2", "train.epochs=6", "loss.implementation=torch"),
        *("optimizer.learning_rate=1e-3", "optimizer.min_learning_rate=1e-3"),
        f"train.process_timeout_seconds={TIMEOUT_SECONDS}",
        f"train.init_from={recipe.parent / 'checkpoint'}",
        f"train.run_dir={run_dir(recipe, spec, case.name)}",
        *case.settings,
    ]


def _train(recipe: Path, spec: Spec, case: Case, reference: Result | None, outcome: Outcome) -> None:
    """Train to NUM_STEPS from the initial weights, or from the checkpoint that the case resumes."""
    from acc_megatron.mesh.process_groups import own_ranks, process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config
    from acc_megatron.training.resume import restore, save
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer
    from support.engine.module import MODULE
    from support.engine.offloading import take_offloaded_bytes

    config = load_config(recipe, _settings(recipe, spec, case))
    check_job(config, case.world, has_gpu=spec == "engine", capability=9.0 if spec == "engine" else None)
    MODULE.calls.clear()
    with (
        _fp8_over_float32(case),
        small_buckets(),
        process_groups(config.parallel, timeout_seconds=TIMEOUT_SECONDS) as layout,
    ):
        if case.resumes is not None:
            _copy_checkpoint(recipe, spec, case)
        trainer = build_trainer(config, layout)
        restore(trainer)
        assert trainer.step == (SAVED_STEP if case.resumes else 0)
        compared = adapter_matrix if config.adapter.rank else layout_matrix
        prepare = trainer.optimizer.prepare_grads  # the step calls it when gradients are summed over ranks

        def look_then_prepare() -> Any:
            if trainer.step == 0 and case.compares_gradients:
                if reference is not None:
                    outcome.gradient_difference = compared.difference(trainer, reference, own_ranks())
                if case.world == 1:
                    outcome.gradients = compared.complete_gradients(trainer)
            if trainer.step == 0:
                outcome.rounded = _rounded_gradients(trainer)
            return prepare()

        trainer.optimizer.prepare_grads = look_then_prepare
        if config.memory.offload_modules:
            trainer.transformer.min_offloaded_tensor_size = 1  # its default is a million elements
        while trainer.step < case.num_steps:
            step = train_step(trainer)
            outcome.losses.append(step.loss)
            outcome.norms.append(step.grad_norm)
            if trainer.step == SAVED_STEP and case.saves:
                save(trainer)
        outcome.calls, outcome.offloaded = dict(MODULE.calls), take_offloaded_bytes()
        outcome.engine_modules = sum(
            any(base.__module__.startswith("transformer_engine.") for base in type(module).__mro__)
            for model in trainer.models
            for module in model.modules()
        )


def _rounded_gradients(trainer: Any) -> list[str]:
    train = trainer.config.train
    # Megatron has divided the sums by this number
    count = trainer.loader.num_supervised_tokens(trainer.loader.batch(0, train.global_batch_rows, train.epochs))
    named = (item for model in trainer.models for item in model.named_parameters())
    sums = {name: p.main_grad.float() * count for name, p in named if p.requires_grad}
    return [name for name, s in sums.items() if torch.allclose(s, s.bfloat16().float(), rtol=1e-5, atol=0.0)]


def _copy_checkpoint(recipe: Path, spec: Spec, case: Case) -> None:
    import torch.distributed as dist

    assert case.resumes is not None
    source_spec, _, name = case.resumes.partition("/")
    if dist.get_rank() == 0:
        source = run_dir(recipe, "engine" if source_spec == "engine" else "cpu", name)
        shutil.copytree(source / "checkpoints", run_dir(recipe, spec, case.name) / "checkpoints")
    dist.barrier()


@contextlib.contextmanager
def _fp8_over_float32(case: Case) -> Iterator[None]:
    """Keep parameters and activations of FP8 precisions in float32; then the specs differ only by rounding to FP8."""
    if not case.fp8_over_float32:
        yield
        return
    from acc_megatron.model import precision, transformer_config

    wide = {name: dataclasses.replace(kind, dtype="float32") for name, kind in precision.PRECISIONS.items()}
    with (
        mock.patch.dict(precision.PRECISIONS, wide),
        mock.patch.dict(transformer_config.DTYPES, dict.fromkeys(wide, torch.float32)),
    ):
        yield
