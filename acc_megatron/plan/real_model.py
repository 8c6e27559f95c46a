"""Parameters counted in the model that training builds, on the meta device, as one rank of the full world.

A fake process group provides the world size, so no memory and no other processes are needed. Stages between the first
and the last are equal, so only one of them is built.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from acc_megatron.mesh.process_groups import model_parallel_groups  # first: it makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch.testing._internal.distributed.fake_pg import FakeStore

from acc_megatron.config import Config, MemoryConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.build import build_chunks
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.model.transformer_config import training_config
from acc_megatron.plan.parameters import Parameters


def built_parameters(config: Config, layout: Layout) -> list[Parameters]:
    """Parameters on one rank of each pipeline stage, in the order of the stages."""
    last = layout.pipeline - 1
    representatives = {stage: _build_stage(config, layout, stage) for stage in sorted({0, min(1, last), last})}
    return [representatives[stage if stage in (0, last) else 1] for stage in range(layout.pipeline)]


def _build_stage(config: Config, layout: Layout, stage: int) -> Parameters:
    with _fake_rank(config, layout, stage * (layout.world // layout.pipeline)), torch.device("meta"):
        transformer = training_config(_without_gpu_parts(config), layout)
        transformer.perform_initialization = False
        transformer.use_cpu_initialization = False
        transformer.init_model_with_meta_device = True
        chunks = build_chunks(config.model, transformer)
    named = [item for chunk in chunks for item in chunk.named_parameters()]
    experts = sum(parameter.numel() for name, parameter in named if ".experts." in name)
    total = sum(parameter.numel() for _, parameter in named)
    return Parameters(total - experts, experts, max(parameter.numel() for _, parameter in named))


def _without_gpu_parts(config: Config) -> Config:
    """Remove settings that Megatron rejects without a GPU and that add no parameters: recompute, dispatcher, FP8."""
    return dataclasses.replace(
        config,
        memory=MemoryConfig(),
        moe=dataclasses.replace(config.moe, dispatcher="alltoall"),
        train=dataclasses.replace(config.train, precision=PRECISIONS[config.train.precision].dtype),
    )


@contextmanager
def _fake_rank(config: Config, layout: Layout, rank: int) -> Iterator[None]:
    """Act as `rank` of a world in which only this process exists; restores torch's current device at the end."""
    current_device = torch.cuda.current_device
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=layout.world)
    try:
        model_parallel_groups(config.parallel, layout)
        torch.cuda.current_device = lambda: torch.device("meta")  # type: ignore[assignment,return-value]
        yield
    finally:
        torch.cuda.current_device = current_device
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
