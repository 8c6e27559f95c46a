"""A small model, dataset and recipe for the checks that train; its dims suit the kernels of a GPU, or a CPU."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.checkpoint import store
from acc_megatron.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)
from acc_megatron.model.build import build_chunks
from acc_megatron.model.transformer_config import training_config
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place
from acc_megatron.training.resume import restore
from acc_megatron.training.step import train_step
from acc_megatron.training.step_result import StepResult
from acc_megatron.training.trainer import Trainer, build_trainer

NUM_LAYERS = 4  # two pipeline stages of two chunks
NUM_EXPERTS = 8
SUPERVISED_SHARE = 0.1
DOCUMENT_SHARES = (0.55, 0.25, 0.15)  # of a packed row, which has one of each; the rest is padding


def on_gpu() -> bool:
    """Return whether the checks run on GPUs."""
    return torch.cuda.is_available()


def tiny_model() -> ModelConfig:
    """Return a Qwen3-MoE of four layers and eight experts."""
    scale = 8 if on_gpu() else 1
    return ModelConfig(
        vocab_size=1024 * scale, hidden_size=64 * scale, num_hidden_layers=NUM_LAYERS, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64 if on_gpu() else 16, num_experts=NUM_EXPERTS, num_experts_per_tok=2,
        moe_intermediate_size=32 * scale, max_position_embeddings=4096,
    )  # fmt: skip


def tiny_config(place: Place, name: str, *, batch_rows: int, num_steps: int) -> Config:
    """Return a recipe that trains the tiny model with AdamW, and write its dataset and initial weights.

    Every rank calls this. The weights are float32 or, on GPUs, bfloat16, saved once for every layout.
    """
    folder = place.folder / "work" / name
    row = 2048 if on_gpu() else 256
    model = tiny_model()
    lengths = [int(row * share) for share in DOCUMENT_SHARES] * batch_rows * 2
    place.on_first_rank(
        lambda: write_dataset(folder / "dataset", lengths, model.vocab_size, supervised_share=SUPERVISED_SHARE)
    )
    config = Config(
        name=f"selftest-{name}",
        model=model,
        data=DataConfig(path=str(folder / "dataset"), seq_length_tokens=row),
        optimizer=OptimizerConfig(learning_rate=1e-3, min_learning_rate=1e-3),
        train=TrainConfig(
            run_dir=str(folder / "run"),
            global_batch_rows=batch_rows,
            epochs=-(-num_steps // 2),
            precision="bfloat16" if on_gpu() else "float32",
            process_timeout_seconds=GROUP_TIMEOUT_SECONDS,
        ),
    )
    return with_train(config, init_from=str(_save_weights(place, config, folder / "weights")))


def _save_weights(place: Place, config: Config, folder: Path) -> Path:
    """Save random weights from data-parallel ranks, all of which have the same."""
    place.meet()
    checkpoint = folder / "step_00000000"
    with process_groups(ParallelConfig(), timeout_seconds=GROUP_TIMEOUT_SECONDS) as layout:
        transformer = training_config(config, layout)
        chunks = [chunk.to(torch.cuda.current_device()) for chunk in build_chunks(config.model, transformer)]
        state = {"step": 0, "model": vars(config.model), "code_version": "", "precision": config.train.precision}
        store.save(checkpoint, list(chunks), None, state)
    return checkpoint


def with_train(config: Config, **changes: object) -> Config:
    """Return the config with other fields of [train]."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))  # type: ignore[arg-type]


def train_here(
    config: Config, num_steps: int, after_first: Callable[[Trainer], None] = lambda trainer: None
) -> list[StepResult]:
    """Train in the current world, from the weights that the config names; `after_first` sees the first gradients."""
    with process_groups(config.parallel, timeout_seconds=GROUP_TIMEOUT_SECONDS) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        steps = [train_step(trainer)]
        after_first(trainer)
        steps += [train_step(trainer) for _ in range(num_steps - 1)]
    return steps
