"""One step of the real layer size: its time, and its peak memory against `plan`."""

import dataclasses
import math
import statistics
from functools import partial
from pathlib import Path

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.config import Config, DataConfig, ModelConfig, OptimizerConfig, ParallelConfig, TrainConfig
from acc_megatron.data.packing import round_up
from acc_megatron.mesh.gpu_specs import MACHINES
from acc_megatron.mesh.layout import Layout, build_layout
from acc_megatron.plan.memory import RowContents, buffer_bytes, stage_memory
from acc_megatron.plan.parameters import stage_parameters
from acc_megatron.plan.planner import EXPERT_LOAD, make_plan
from acc_megatron.plan.rank_sizes import rank_sizes
from acc_megatron.plan.speeds import assumed_speeds
from acc_megatron.plan.workload import read_workload
from acc_megatron.selftest.allocated_memory import allocated_bytes, count_every_allocation, peak_bytes
from acc_megatron.selftest.check import CheckFailed, Found, Skipped
from acc_megatron.selftest.place import GROUP_TIMEOUT_SECONDS, Place
from acc_megatron.selftest.tiny_run import DOCUMENT_SHARES, SUPERVISED_SHARE, on_gpu
from acc_megatron.training.step import train_step
from acc_megatron.training.step_result import StepResult
from acc_megatron.training.trainer import build_trainer

# the layers of Qwen3-30B-A3B (its config.json), as many as fit
REAL = ModelConfig(
    vocab_size=151_936, hidden_size=2048, num_hidden_layers=4, num_attention_heads=32, num_key_value_heads=4,
    head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, max_position_embeddings=262_144,
)  # fmt: skip
ON_CPU = ModelConfig(
    vocab_size=8192, hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
    num_experts=8, num_experts_per_tok=2, moe_intermediate_size=96, max_position_embeddings=8192,
)  # fmt: skip
ROW_TOKENS = {True: 16_384, False: 2048}  # by on_gpu()
FIT_SHARE = 0.9  # of the device's free memory
NUM_WARMUP_STEPS = 2  # afterwards optimizer states and cached buffers exist
NUM_TIMED_STEPS = 3
MEMORY_LIMIT = 1.15  # measured over planned


class RealStep:
    """On GPUs: layers of Qwen3-30B-A3B on all ranks, with the optimizer's state split; on CPU a small model."""

    name = "step"
    summary = "a step of the real layer size runs, and needs no more memory than plan says"
    limit_seconds = 300.0
    advice = "compare with acc-megatron plan for your recipe, and keep that share of memory free"

    def run(self, place: Place) -> Found:
        """Train a few steps; the figures are of the last ones."""
        if place.is_quick:
            raise Skipped("--quick leaves it out")
        config, layout, planned = _largest_that_fits(place)
        place.on_first_rank(lambda: _write_documents(config))
        if on_gpu():
            place.meet()
            steps, measured = _measure(config)
        else:
            with place.one_process():
                steps, measured = _measure(config)
        figures = _figures(config, layout, steps, measured, planned)
        if not math.isfinite(steps[-1].loss):
            raise CheckFailed(f"the loss of step {len(steps)} is {steps[-1].loss}")
        if measured > MEMORY_LIMIT * planned:
            raise CheckFailed(
                f"a step allocates {measured / 1e9:.2f} GB, plan says {planned / 1e9:.2f} GB: more than "
                f"{MEMORY_LIMIT:g} times as much"
            )
        return Found(
            figures, f"{config.model.num_hidden_layers} layers, rows of {config.data.seq_length_tokens}, {layout}"
        )


def _largest_that_fits(place: Place) -> tuple[Config, Layout, float]:
    """Return the config with the most layers that fits, its layout, and the planned bytes of torch's allocator."""
    world = place.world if on_gpu() else 1
    free = torch.cuda.mem_get_info()[0] if on_gpu() else math.inf
    needed = 0.0
    for num_layers in (4, 2, 1) if on_gpu() else (4,):
        config = _config(place.folder, world, num_layers)
        layout = build_layout(config.parallel, world)
        total, allocated = _planned(config, layout)
        needed = total
        if total <= FIT_SHARE * free:
            return config, layout, allocated
    raise Skipped(f"one layer needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")


def _config(folder: Path, world: int, num_layers: int) -> Config:
    work = folder / "work" / "step"
    expert = math.gcd(world, 8)
    parallel = ParallelConfig(expert=expert)
    if world > 1:
        parallel = ParallelConfig(expert=expert, distributed_optimizer=True, overlap_grad_reduce=True)
    return Config(
        name="selftest-step",
        model=dataclasses.replace(REAL if on_gpu() else ON_CPU, num_hidden_layers=num_layers),
        data=DataConfig(path=str(work / "dataset"), seq_length_tokens=ROW_TOKENS[on_gpu()]),
        parallel=parallel,
        optimizer=OptimizerConfig(learning_rate=1e-4, min_learning_rate=1e-4),
        train=TrainConfig(
            run_dir=str(work / "run"),
            global_batch_rows=world,
            epochs=NUM_WARMUP_STEPS + NUM_TIMED_STEPS + 1,
            precision="bfloat16" if on_gpu() else "float32",
        ),
    )


def _documents(config: Config) -> list[int]:
    return [int(config.data.seq_length_tokens * share) for share in DOCUMENT_SHARES] * config.train.global_batch_rows


def _write_documents(config: Config) -> None:
    write_dataset(
        Path(config.data.path), _documents(config), config.model.vocab_size, supervised_share=SUPERVISED_SHARE
    )


def _planned(config: Config, layout: Layout) -> tuple[float, float]:
    """Return the planned bytes of a rank in all, and without what torch's allocator does not count."""
    sizes = rank_sizes(config, layout, on_gpu=on_gpu(), expert_load=EXPERT_LOAD if layout.expert > 1 else 1.0)
    lengths = [round_up(length, config.data.document_multiple_tokens) for length in _documents(config)]
    lengths = lengths[: len(DOCUMENT_SHARES)]
    row = RowContents(tuple(lengths), sum(max(1, round(length * SUPERVISED_SHARE)) for length in lengths))
    memory = stage_memory(config, layout, sizes, stage_parameters(config.model, layout, 0), stage=0, row=row)
    counted = buffer_bytes(layout, dataclasses.replace(sizes, on_gpu=False))
    return memory.total, memory.total - memory.buffers + counted


def _measure(config: Config) -> tuple[list[StepResult], int]:
    """Return the timed steps, and the peak of one of them beyond what was allocated before."""
    count_every_allocation()
    before = allocated_bytes()
    with process_groups(config.parallel, timeout_seconds=GROUP_TIMEOUT_SECONDS):
        trainer = build_trainer(config, build_layout(config.parallel, torch.distributed.get_world_size()))
        for _ in range(NUM_WARMUP_STEPS):
            train_step(trainer)
        peak = peak_bytes(partial(train_step, trainer)) - before
        steps = [train_step(trainer) for _ in range(NUM_TIMED_STEPS)]
        del trainer
    return steps, peak


def _figures(
    config: Config, layout: Layout, steps: list[StepResult], measured: float, planned: float
) -> dict[str, float]:
    seconds = statistics.median(step.seconds for step in steps)
    figures = {
        "seconds a step": seconds,
        "tokens/s a rank": steps[-1].tokens / seconds / layout.world,
        "peak GB": measured / 1e9,
        "planned GB": planned / 1e9,
    }
    name = torch.cuda.get_device_name().upper() if on_gpu() else ""
    machine = next((found for key, found in MACHINES.items() if key.upper() in name), None)
    if machine is not None:
        figures["planned seconds"] = make_plan(
            config, layout, assumed_speeds(machine), read_workload(config)
        ).time.total
    return figures
