"""`bench step`: compares one training step of this package with a bare megatron-core loop and with transformers."""

import dataclasses
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acc_megatron.mesh.process_groups import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.bench.csv_file import append_csv
from acc_megatron.bench.step_loops import bare_megatron_loop, our_loop, transformers_loop
from acc_megatron.calibrate.clock import now
from acc_megatron.common.this_machine import machine
from acc_megatron.config import Config, ParallelConfig
from acc_megatron.data.loader import EMPTY_ROW, Loader, PackedRow
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.training.trainer import build_trainer

NUM_WARMUP_STEPS = 2


def bench_step(config: Config, *, rounds: int, csv_file: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds per step of each loop over the same packed rows, and medians of the ratios within a round.

    All loops run in this process. `bare_megatron` has the same model including the masked output layer, its packed rows
    in memory, and no log, checks or schedule. `bare_megatron_own_head` computes full logits and then Megatron's cross
    entropy. `transformers` processes the documents of a packed row one by one. The clock is the CPU time of this
    process, on GPU wall time after a synchronization. Results are appended to `csv_file`.
    """
    num_steps = NUM_WARMUP_STEPS + rounds
    with process_groups(ParallelConfig()) as layout, tempfile.TemporaryDirectory() as folder:
        config = _single_process(config, Path(folder), num_steps)
        trainer = build_trainer(config, layout)
        log = MetricsLog(Path(folder), active=True).__enter__()
        steps = _rows_by_step(trainer.loader, config, num_steps)
        runs = {
            "ours": our_loop(trainer, log),
            "bare_megatron": bare_megatron_loop(trainer, steps, has_masked_head=True),
            "bare_megatron_own_head": bare_megatron_loop(trainer, steps, has_masked_head=False),
            "transformers": transformers_loop(config, steps),
        }
        for name in ("bare_megatron", "bare_megatron_own_head"):
            next(runs[name])  # copies the weights before our first step changes them
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        losses: dict[str, float] = {}
        for number in range(num_steps):
            # a different order in each round: the loop after the largest one pays for the memory that was returned
            for name in random.Random(number).sample(list(runs), len(runs)):
                start = now()
                loss = next(runs[name])
                elapsed = now() - start
                losses.setdefault(name, loss)
                if number >= NUM_WARMUP_STEPS:
                    seconds[name].append(elapsed)
            say(f"round {number + 1} of {num_steps}")
        log.__exit__(None, None, None)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = config.train.global_batch_rows * config.data.seq_length_tokens
    common = {"tokens": tokens, "rounds": rounds, "clock": "wall" if torch.cuda.is_available() else "cpu"}
    rows = [{"config": config.name, "loop": name, "seconds": medians[name], **common} for name in runs]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    append_csv(csv_file, rows, gpu=gpu)
    return {
        "time_ratio_vs_bare_megatron": _ratio(seconds, "bare_megatron"),
        "time_ratio_vs_bare_megatron_own_head": _ratio(seconds, "bare_megatron_own_head"),
        "time_ratio_vs_transformers": _ratio(seconds, "transformers"),
        "seconds": medians,
        "first_loss": losses,  # equal for the loops that start from the same weights
        **common,
        **machine(gpu=gpu),
    }


def _ratio(seconds: dict[str, list[float]], other: str) -> float:
    return statistics.median(
        our_seconds / other_seconds for our_seconds, other_seconds in zip(seconds["ours"], seconds[other], strict=True)
    )


def _single_process(config: Config, run_dir: Path, num_steps: int) -> Config:
    """The recipe for one process, with enough epochs that every step has a full batch."""
    train = dataclasses.replace(
        config.train, run_dir=str(run_dir), init_from=None, epochs=num_steps * config.train.global_batch_rows
    )
    return dataclasses.replace(config, parallel=ParallelConfig(), train=train)


def _rows_by_step(loader: Loader, config: Config, num_steps: int) -> list[list[PackedRow]]:
    batches = [loader.batch(step, config.train.global_batch_rows, config.train.epochs) for step in range(num_steps)]
    assert not any(EMPTY_ROW in batch for batch in batches)
    return [loader.rank_rows(batch, 0, 0) for batch in batches]
