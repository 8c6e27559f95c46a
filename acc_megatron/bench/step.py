"""`bench step`: compares one training step of this package with a bare megatron-core loop and with transformers."""

import dataclasses
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
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
from acc_megatron.kernels.benchmark.child import is_out_of_memory
from acc_megatron.kernels.benchmark.run import MEASURED
from acc_megatron.observe.metrics import MetricsLog
from acc_megatron.training.trainer import build_trainer

NUM_WARMUP_STEPS = 2


def bench_step(config: Config, *, rounds: int, csv_file: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds per step of each loop over the same packed rows, and medians of the ratios within a round.

    All loops run in this process. `bare_megatron` has the same model including the masked output layer, its packed rows
    in memory, and no log, checks or schedule. `bare_megatron_own_head` computes full logits and then Megatron's cross
    entropy. `transformers` processes the documents of a packed row one by one. The clock is the CPU time of this
    process, on GPU wall time after a synchronization. A loop for which memory is not sufficient is a row that says so,
    and the others continue. Results are appended to `csv_file`.
    """
    num_steps = NUM_WARMUP_STEPS + rounds
    with process_groups(ParallelConfig()) as layout, tempfile.TemporaryDirectory() as folder:
        config = _single_process(config, Path(folder), num_steps)
        trainer = build_trainer(config, layout)
        log = MetricsLog(Path(folder), active=True).__enter__()
        steps = _rows_by_step(trainer.loader, config, num_steps)
        loops = {
            "ours": MeasuredLoop(our_loop(trainer, log)),
            "bare_megatron": MeasuredLoop(bare_megatron_loop(trainer, steps, has_masked_head=True)),
            "bare_megatron_own_head": MeasuredLoop(bare_megatron_loop(trainer, steps, has_masked_head=False)),
            "transformers": MeasuredLoop(transformers_loop(config, steps)),
        }
        for name in ("bare_megatron", "bare_megatron_own_head"):
            loops[name].advance()  # copies the weights before our first step changes them
        for number in range(num_steps):
            # a different order in each round: the loop after the largest one pays for the memory that was returned
            for name in random.Random(number).sample(list(loops), len(loops)):
                loops[name].step(is_warmup=number < NUM_WARMUP_STEPS)
            say(f"round {number + 1} of {num_steps}")
        log.__exit__(None, None, None)
    for name, loop in loops.items():
        if loop.status != MEASURED:
            say(f"{name}: {loop.status}")
    tokens = config.train.global_batch_rows * config.data.seq_length_tokens
    common = {"tokens": tokens, "rounds": rounds, "clock": "wall" if torch.cuda.is_available() else "cpu"}
    rows = [
        {"config": config.name, "loop": name, "seconds": loop.median_seconds, "status": loop.status, **common}
        for name, loop in loops.items()
    ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    append_csv(csv_file, rows, gpu=gpu)
    return {
        **{f"time_ratio_vs_{name}": _ratio(loops["ours"], loop) for name, loop in loops.items() if name != "ours"},
        "seconds": {name: loop.median_seconds for name, loop in loops.items()},
        "status": {name: loop.status for name, loop in loops.items()},
        # equal for the loops that start from the same weights
        "first_loss": {name: loop.first_loss for name, loop in loops.items()},
        **common,
        **machine(gpu=gpu),
    }


@dataclasses.dataclass
class MeasuredLoop:
    """A loop, the seconds of its steps, and why it ended early, if it did."""

    run: Iterator[float]
    status: str = MEASURED
    seconds: list[float] = dataclasses.field(default_factory=list)
    first_loss: float | None = None

    @property
    def median_seconds(self) -> float | None:
        """The median of the measured steps; None if the loop ended early."""
        return statistics.median(self.seconds) if self.status == MEASURED and self.seconds else None

    def advance(self) -> float | None:
        """The next value of the loop; None once memory was not sufficient."""
        if self.status != MEASURED:
            return None
        try:
            return next(self.run)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.status = f"does not fit: {(str(error) or 'out of memory').splitlines()[0]}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the loop has ended and holds nothing any more
        return None

    def step(self, *, is_warmup: bool) -> None:
        """Take a step and keep its seconds, except those of a warm-up."""
        start = now()
        loss = self.advance()
        elapsed = now() - start
        self.first_loss = loss if self.first_loss is None else self.first_loss
        if not is_warmup:
            self.seconds.append(elapsed)


def _ratio(ours: MeasuredLoop, other: MeasuredLoop) -> float | None:
    if ours.status != MEASURED or other.status != MEASURED:
        return None
    return statistics.median(a / b for a, b in zip(ours.seconds, other.seconds, strict=True))


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
