"""The GPU configuration on CPU: Megatron's own Transformer Engine spec over the stand-in, in child processes alone."""

import shutil
import sys
from pathlib import Path
from typing import Any

from commands import ROOT
from layout_matrix import NUM_STEPS, Case, Result, whole_gradients
from make_inputs import TINY_MODEL, make_recipe

STANDIN = ROOT / "tests" / "transformer_engine_standin"
FULL = ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml"
SAVED_STEP = 2
# every dim a multiple of 16, as FP8 needs
MODEL = TINY_MODEL | {"hidden_size": 32, "num_hidden_layers": 4, "num_experts": 8, "moe_intermediate_size": 32}
LAYOUTS = {
    "one process": (1, ("parallel.expert=1",)),
    "TP2": (2, ("parallel.tensor=2", "parallel.expert=1")),
    "EP2": (2, ("parallel.expert=2",)),
    "CP2": (2, ("parallel.context=2", "parallel.expert=1")),
    "PP2": (2, ("parallel.pipeline=2", "parallel.expert=1")),
}


def scaled_down(folder: Path) -> Path:
    """The 30B recipe with its layout, dispatcher, router, recompute and optimizer, over a model of MODEL's size.

    float32, so that two specs can agree to 1e-5, and a learning rate that moves the weights.
    """
    tiny = make_recipe(folder, **MODEL).read_text()
    lines = FULL.read_text().splitlines()
    recipe, section = [], ""
    replaced = {
        "data": f"path = '{folder / 'dataset'}'\nseq_length_tokens = 512",
        "model": tiny.partition("[model]\n")[2].partition("[data]")[0],
    }
    for line in lines:
        if line.startswith("["):
            section = line.strip("[]")
            recipe += [line, *([replaced[section]] if section in replaced else [])]
        elif section not in replaced:
            recipe.append(line)
    path = folder / "scaled_down.toml"
    path.write_text("\n".join(recipe) + "\n")
    return path


def overrides(recipe: Path) -> list[str]:
    """What the small run must set besides the model: batch, checkpoint, learning rate, one rank an axis."""
    return [
        "parallel.tensor=1",
        "parallel.context=1",
        "train.precision=float32",
        "train.global_batch_rows=4",
        "train.epochs=6",
        "train.process_timeout_seconds=300",
        f"train.init_from={recipe.parent / 'checkpoint'}",
        f"train.run_dir={recipe.parent / 'unset'}",
        "optimizer.learning_rate=1e-3",
        "optimizer.min_learning_rate=1e-3",
    ]


def run_dir(recipe: Path, name: str) -> Path:
    """The run folder of a case."""
    return recipe.parent / "runs" / name.replace(" ", "_").replace(">", "--")


def going_on(recipe: Path, source: str, target: str) -> Case:
    """A case that goes on in layout `target` from the checkpoint that `source` saved."""
    world, settings = LAYOUTS[target]
    case = Case(f"{source}>{target}", world, settings)
    shutil.copytree(run_dir(recipe, source) / "checkpoints", run_dir(recipe, case.name) / "checkpoints")
    return case


def train_on_engine_spec(recipe: Path, case: Case, reference: Result | None) -> Result:
    """`train_either_spec` with the stand-in importable; the process's first use of Megatron."""
    sys.path.insert(0, str(STANDIN))
    return train_either_spec(recipe, case, reference)


def train_either_spec(recipe: Path, case: Case, _: Result | None) -> Result:
    """Train NUM_STEPS; a case whose name holds '>' goes on from its run folder, others save after SAVED_STEP.

    `float32 base` in the name keeps FP8 runs' parameters in float32 and brings the first step's gradients back.
    `gradients["layers"]` counts the layers of Transformer Engine, `gradients["fp8"]` how often its FP8 context was
    entered.
    """
    from acc_megatron.distributed import process_groups  # isort: split
    import dataclasses

    import torch

    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config
    from acc_megatron.model import precision, transformer_config
    from acc_megatron.resume import restore, save
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    if "float32 base" in case.name:
        for name, kind in precision.PRECISIONS.items():
            precision.PRECISIONS[name] = dataclasses.replace(kind, dtype="float32")
            transformer_config.DTYPES[name] = torch.float32
    own = [f"train.run_dir={run_dir(recipe, case.name)}"]
    config = load_config(recipe, [*overrides(recipe), *own, *case.overrides])
    check_job(config, case.world)
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        assert trainer.step == (SAVED_STEP if ">" in case.name else 0)
        losses: list[float] = []
        gradients: dict[str, torch.Tensor] = {}
        prepare = trainer.optimizer.prepare_grads  # the step calls it when gradients are summed over ranks

        def look_then_prepare() -> Any:
            if "float32 base" in case.name and not gradients:
                gradients.update(whole_gradients(trainer))
            return prepare()

        trainer.optimizer.prepare_grads = look_then_prepare
        while trainer.step < NUM_STEPS:
            losses.append(train_step(trainer)["loss"])
            if trainer.step == SAVED_STEP and ">" not in case.name:
                save(trainer)
        engine = [
            type(module).__mro__[1].__module__
            for model in trainer.models
            for module in model.modules()
            if any(base.__module__.startswith("transformer_engine.") for base in type(module).__mro__)
        ]
        state = sys.modules.get("transformer_engine.pytorch.quantization")
        entered = 0 if state is None else len(state.FP8GlobalStateManager.entered)
        if state is not None:
            state.FP8GlobalStateManager.reset()
        gradients |= {"layers": torch.tensor(len(engine)), "fp8": torch.tensor(entered)}
        return Result(losses=losses, gradients=gradients)
