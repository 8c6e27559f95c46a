"""Weights after training in every layout, saved and exported, against a plain training loop with transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.layout_cases import PAIRS, SHARDED_PAIRS, SHARDED_SINGLES, SINGLES, Case
from support.layout_matrix import Result, run_cases, small_buckets
from support.make_inputs import make_recipe
from support.transformers_gradients import Balancing, float64_training

NUM_STEPS = 3
BALANCING = Balancing(loss=0.1, z_loss=0.01)
# eps is far above the rounding of gradients, whose sign would otherwise decide the first steps
SETTINGS = (
    "optimizer.kind=adamw",
    "optimizer.learning_rate=1e-2",
    "optimizer.min_learning_rate=1e-3",
    "optimizer.adam_eps=1e-4",
    "optimizer.weight_decay=0.1",
    "optimizer.clip_grad_norm=0.5",
    "optimizer.warmup_fraction=0.4",
    "moe.load_balancing=aux_loss",
    f"moe.load_balancing_coefficient={BALANCING.loss}",
    f"moe.z_loss_coefficient={BALANCING.z_loss}",
)
ONE = [Case("one process", 1)]
pytestmark = pytest.mark.distributed


def run_dir(recipe: Path, case: Case) -> Path:
    return recipe.parent / "runs" / case.name.replace(" ", "_")


def train_and_save(recipe: Path, case: Case, _: Result | None) -> Result:
    """Train to NUM_STEPS and save a checkpoint."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.training.resume import restore, save
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    # the settings of the comparison come last: some cases name an optimizer
    overrides = (*case.overrides, *SETTINGS, f"train.run_dir={run_dir(recipe, case)}")
    config = load_config(recipe, overrides)
    with small_buckets(), process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        losses = [train_step(trainer).loss for _ in range(NUM_STEPS)]
        save(trainer)
    return Result(losses)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def reference(recipe: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of transformers."""
    losses = float64_training(recipe, SETTINGS, NUM_STEPS, recipe.parent / "reference", BALANCING)
    return losses, load_file(recipe.parent / "reference" / "model.safetensors")


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(ONE, id="one process"),
        pytest.param([*SINGLES, *SHARDED_SINGLES], id="every single layout on 2", marks=pytest.mark.slow),
        pytest.param([*PAIRS, *SHARDED_PAIRS], id="every pair on 4", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_weights_after_training_equal_those_of_a_training_loop_with_transformers(
    cases: list[Case], recipe: Path, reference: tuple[list[float], dict[str, torch.Tensor]]
) -> None:
    from acc_megatron.checkpoint.export_folder import export_folder
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    losses, expected = reference
    start = load_file(recipe.parent / "hf" / "model.safetensors")
    moved = {name: float((expected[name] - start[name]).abs().max() / start[name].abs().max()) for name in start}
    assert min(moved[name] for name in moved if "embed" not in name) > 1e-3, "every tensor must move"
    for name, result in run_cases(recipe, cases, None, train_and_save).items():
        case = next(case for case in cases if case.name == name)
        assert result.losses == pytest.approx(losses, abs=1e-5), name
        export = run_dir(recipe, case) / "export"
        export_folder(run_dir(recipe, case) / "checkpoints" / "latest", export, load_tokenizer("qwen3"))
        found = load_file(export / "model.safetensors")
        assert found.keys() == expected.keys()
        errors = {
            tensor: float((found[tensor] - expected[tensor]).abs().max() / expected[tensor].abs().max())
            for tensor in expected
        }
        wrong = {tensor: error for tensor, error in errors.items() if error > 1e-5}
        assert not wrong, f"{name}: {wrong}"
