"""Recipes, datasets and process bodies for the tests of interrupted runs.

A body runs inside the process under test. It observes the run, or causes the fault that the test is about; the product
has no hooks for tests.
"""

import hashlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acc_megatron.bench.random_dataset import write_dataset
from support.make_inputs import TINY_MODEL
from support.run_processes import command_line

ROW_TOKENS = 256
SMALL_VOCABULARY = 4096


def make_small_dataset(folder: Path, num_documents: int) -> Path:
    """Write documents of 140 to 250 random tokens of a small vocabulary, so that each fills one row of 256 tokens."""
    lengths = [140 + number * 110 // num_documents for number in range(num_documents)]
    return write_dataset(folder / "dataset", lengths, SMALL_VOCABULARY, supervised_share=0.1)


def write_recipe(path: Path, dataset: Path, *, batch_rows: int, epochs: int, seed: int = 0) -> Path:
    """Write a recipe that trains from random weights with Adam and gradient clipping."""
    from acc_megatron.data_tools.convert.manifest import read_manifest

    vocab_size = -(-read_manifest(dataset)["tokenizer"]["vocab_size"] // 128) * 128
    lines = [
        "name = 'survivor'",
        "[model]",
        *(f"{key} = {value}" for key, value in (TINY_MODEL | {"vocab_size": vocab_size}).items()),
    ]
    lines += ["[data]", f"path = '{dataset}'", f"seq_length_tokens = {ROW_TOKENS}"]
    lines += ["[optimizer]", "learning_rate = 1e-2", "min_learning_rate = 1e-2"]
    lines += ["[train]", f"run_dir = '{path.parent / 'unset'}'", f"global_batch_rows = {batch_rows}"]
    lines += [f"epochs = {epochs}", f"seed = {seed}", "process_timeout_seconds = 120"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def arguments(recipe: Path, run_dir: Path, *overrides: str) -> list[str]:
    """The arguments of `acc-megatron`."""
    return ["train", str(recipe), "--json", f"train.run_dir={run_dir}", *overrides]


def make_loader(recipe: Path, seed: int) -> Any:
    from acc_megatron.config import load_config
    from acc_megatron.data.loader import Loader
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset
    from acc_megatron.mesh.layout import Layout

    config = load_config(recipe)
    layout = Layout(world=1, tensor=1, context=1, pipeline=1, expert=1, expert_tensor=1)
    return Loader(open_dataset(Path(config.data.path)), config.data, config.model, layout, seed)


def steps_of(recipe: Path, seed: int, documents: Sequence[int], batch_rows: int = 1) -> list[int]:
    """The steps of the first epoch, counted from 1, that contain any of these documents."""
    loader = make_loader(recipe, seed)
    steps = loader.num_steps(1, batch_rows)
    return [
        step + 1
        for step in range(steps)
        if set(documents) & set(loader.documents(loader.batch(step, batch_rows, epochs=1)))
    ]


def own_token(dataset: Path, document: int) -> int:
    """A token that occurs in no other document."""
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    opened = open_dataset(dataset)
    others = {int(i) for number in range(len(opened)) if number != document for i in opened.document(number)[0]}
    return next(int(i) for i in opened.document(document)[0] if int(i) not in others)


def digest(tensors: Any) -> str:
    import torch

    flat = (tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in tensors)
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in flat)).hexdigest()


def state_hashes(trainer: Any) -> dict[str, str]:
    """SHA-256 of this rank's weights and optimizer state."""
    optimizers = [part.optimizer for part in getattr(trainer.optimizer, "chained_optimizers", [trainer.optimizer])]
    groups = [(optimizer, group) for optimizer in optimizers if optimizer for group in optimizer.param_groups]
    moments = [
        optimizer.state[parameter][name]
        for optimizer, group in groups
        for parameter in group["params"]
        for name in ("exp_avg", "exp_avg_sq", "master_param")
        if name in optimizer.state[parameter]
    ]
    return {
        "weights": digest(parameter for model in trainer.models for parameter in model.parameters()),
        "optimizer": digest(moments),
        "optimizer steps": str([group["step"] for _, group in groups]),
    }


def train_and_hash(command: list[str]) -> None:
    """Train; after each save write hashes of the state, and how many loss masks changed since they were read."""
    import acc_megatron.training.train as module
    from acc_megatron.data.loader import Loader, PackedRow

    real_save, real_rows = module.save, Loader.rank_rows
    seen: list[tuple[PackedRow, str]] = []  # complete at the last save only: a thread reads the next step ahead

    def save(trainer: Any) -> Path:
        folder = real_save(trainer)
        path = Path(trainer.config.train.run_dir) / f"hashes_{trainer.step}_{os.environ.get('RANK', '0')}.json"
        masks = {"masks": len(seen), "changed masks": sum(digest([row.loss_mask]) != before for row, before in seen)}
        path.write_text(json.dumps(state_hashes(trainer) | masks))
        return folder

    def rank_rows(self: Loader, *arguments: Any) -> list[PackedRow]:
        rows = real_rows(self, *arguments)
        seen.extend((row, digest([row.loss_mask])) for row in rows)
        return rows

    module.save = save
    Loader.rank_rows = rank_rows  # type: ignore[method-assign]
    command_line(command)


def killed_while_accumulating(command: list[str]) -> None:
    """Train; SIGKILL in the microbatch with the number $KILL_IN_MICROBATCH, counted from 1 over all steps."""
    import acc_megatron.training.forward_backward as module

    real = module._forward_step
    microbatches = 0

    def forward_step(*arguments: Any) -> Any:
        nonlocal microbatches
        microbatches += 1
        if microbatches == int(os.environ["KILL_IN_MICROBATCH"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    module._forward_step = forward_step
    train_and_hash(command)


def with_bad_embedding(command: list[str]) -> None:
    """Train from weights in which the embedding of token $BAD_TOKEN has the value $BAD_VALUE."""
    import acc_megatron.training.train as module

    real = module.build_trainer

    def build_trainer(*arguments: Any) -> Any:
        trainer = real(*arguments)
        weight = trainer.models[0].embedding.word_embeddings.weight
        weight.data[int(os.environ["BAD_TOKEN"])] = float(os.environ["BAD_VALUE"])
        return trainer

    module.build_trainer = build_trainer
    train_and_hash(command)


def with_bad_gradient(command: list[str]) -> None:
    """Train; on rank 1 a gradient of the fifth step becomes infinite in the backward pass, after a finite loss."""
    import acc_megatron.training.train as module

    real = module.build_trainer

    def build_trainer(*arguments: Any) -> Any:
        trainer = real(*arguments)
        is_bad = os.environ["RANK"] == "1"
        trainer.models[0].decoder.final_layernorm.weight.register_hook(
            lambda gradient: gradient * float("inf") if is_bad and trainer.step == 4 else gradient
        )
        return trainer

    module.build_trainer = build_trainer
    train_and_hash(command)


def with_jumping_clock(command: list[str]) -> None:
    """Train while the system clock jumps by ten days between any two readings."""
    import itertools
    import time

    real, days = time.time, itertools.cycle((0, 10, -10))
    time.time = lambda: real() + 86_400 * next(days)
    command_line(command)


def with_counted_experts(command: list[str]) -> None:
    """Train; write the expert counts of each step, summed over the ranks."""
    import acc_megatron.training.step_metrics as module

    real, seen = module.load_values, []

    def load_values(totals: Any) -> Any:
        seen.append(totals.tolist())
        run_dir = Path(next(text for text in command if text.startswith("train.run_dir=")).partition("=")[2])
        (run_dir / f"counts_{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
        return real(totals)

    module.load_values = load_values
    command_line(command)


def with_sleeping_rank(command: list[str]) -> None:
    """Train; rank $SLEEPER sleeps for a long time while it reads its rows in step $SLEEP_IN_STEP."""
    import time

    from acc_megatron.data.loader import Loader

    real, calls = Loader.rank_rows, 0

    def rank_rows(self: Loader, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if os.environ["RANK"] == os.environ["SLEEPER"] and calls == int(os.environ["SLEEP_IN_STEP"]):
            time.sleep(100)
        return real(self, *arguments)

    Loader.rank_rows = rank_rows  # type: ignore[method-assign]
    command_line(command)


def with_spike(command: list[str]) -> None:
    """Train; step $SPIKE_IN_STEP counts as a spike."""
    from acc_megatron.resilience.spikes import SpikeRule

    def is_spike(self: SpikeRule, loss: float, grad_norm: float) -> bool:
        return len(self.losses) + len(self.skipped) + 1 == int(os.environ["SPIKE_IN_STEP"])

    SpikeRule.is_spike = is_spike  # type: ignore[method-assign]
    train_and_hash(command)


def blocked_main_thread(run_dir: Path) -> None:
    """Record signals like a run whose main thread does not return; writes `ready` once it listens."""
    import time

    from acc_megatron.resilience.stop import StopRequest

    with StopRequest(run_dir):
        (run_dir / "ready").touch()
        time.sleep(60)
