"""What saving and resuming costs each of four ranks with the distributed optimizer: bytes, memory and time.

PYTHONPATH=tests python -m support.save_cost  (about 2 minutes, 6 GB of memory)
"""

import ctypes
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from support.commands import free_port
from support.gloo import start_and_join

WORLD = 4
MEGABYTE = 1e6
SIZES = {
    "vocab_size": 16_384, "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 512, "max_position_embeddings": 4096,
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Of one action on one rank."""

    seconds: float
    peak_bytes: int  # resident memory above that before the action
    read_bytes: int  # of files


def measured(action: Callable[[], None]) -> Cost:
    """Run an action on every rank at once and return its cost."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to the present size
    dist.barrier()  # a rank that begins earlier would wait for the others in its first collective
    before, read, start = _number("status", "VmRSS"), _number("io", "rchar"), time.perf_counter()
    action()
    seconds = time.perf_counter() - start
    return Cost(seconds, 1024 * (_number("status", "VmHWM") - before), _number("io", "rchar") - read)


def _number(file: str, name: str) -> int:
    for line in Path("/proc/self", file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def worker(rank: int, port: int, folder: Path) -> None:
    """Build a trained-looking model and optimizer, then save it, save it in the background, and resume."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.checkpoint import store
    from acc_megatron.checkpoint.save_plan import LastPlan
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
    from acc_megatron.training import trainer
    from acc_megatron.training.optimizer import build_optimizer

    config = Config(
        name="cost",
        model=ModelConfig(**SIZES),
        data=DataConfig(path="unused", seq_length_tokens=4096),
        parallel=ParallelConfig(distributed_optimizer=True),
        optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-3, min_learning_rate=1e-3),
        train=TrainConfig(run_dir="unused", global_batch_rows=4, precision="bfloat16"),
    )
    with process_groups(config.parallel) as layout:
        transformer = training_config(config, layout)
        models = [trainer.Float16Module(transformer, m) for m in build_chunks(config.model, transformer, None)]
        chunks = trainer._wrap(config, transformer, models)
        optimizer = build_optimizer(config, chunks)
        for chunk in chunks:
            for parameter in chunk.parameters():
                parameter.main_grad.normal_()
        optimizer.step()
        lines, last_plan = [], LastPlan()
        for name, is_staged, plan in (
            ("save", False, None),
            ("first save in the background", True, last_plan),
            ("later save in the background", True, last_plan),
        ):
            saving: list[store.Save] = []
            arguments = (folder / name, models, optimizer, {"step": 1})
            begin = partial(store.Save, *arguments, is_staged=is_staged, last_plan=plan)
            stalled = measured(lambda saving=saving, begin=begin: saving.append(begin()))
            written = measured(lambda saving=saving: saving[0].finish())
            peak = max(stalled.peak_bytes, written.peak_bytes)
            lines.append((name, stalled.seconds, stalled.seconds + written.seconds, peak))
        file = folder / "save" / f"__{rank}_0.distcp"
        size = file.stat().st_size if file.is_file() else 0
        source = torch.ones(size // 4)
        copy = measured(source.clone)
        del source
        cost = measured(lambda: store.load(folder / "save", models, optimizer))
        report = [None] * WORLD
        dist.all_gather_object(report, (size, lines, copy, cost))
        if rank == 0:
            _print(report)


def _print(report: list) -> None:
    """Print one line per action, with the largest values of all ranks."""
    sizes, lines, copies, costs = zip(*report, strict=True)
    print(f"files of the ranks, MB: {[round(size / MEGABYTE) for size in sizes]}; sum {sum(sizes) / MEGABYTE:,.0f}")
    for rows in zip(*lines, strict=True):
        stalled, total, peak = (max(row[column] for row in rows) for column in (1, 2, 3))
        name = rows[0][0]
        print(f"{name}: training waits {stalled:.2f} s, done after {total:.2f} s, peak {peak / MEGABYTE:,.0f} MB")
    print(f"one copy of a part: {max(copy.seconds for copy in copies):.2f} s")
    seconds, peak, read = (max(getattr(cost, key) for cost in costs) for key in ("seconds", "peak_bytes", "read_bytes"))
    print(f"resume: {seconds:.2f} s, peak {peak / MEGABYTE:,.0f} MB, reads {read / MEGABYTE:,.0f} MB")


def main() -> None:
    """Print the costs."""
    with tempfile.TemporaryDirectory() as folder:
        start_and_join(worker, WORLD, free_port(), Path(folder), timeout=900, is_fresh=False)


if __name__ == "__main__":
    main()
