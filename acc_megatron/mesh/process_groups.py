"""The only place that starts and ends torch.distributed and Megatron's parallel state."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager

from acc_megatron.mesh import cpu_backend

# Before CUDA starts: one device queue keeps communication ahead of the matrix products that it overlaps with.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
cpu_backend.install()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from megatron.core import parallel_state  # noqa: E402
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed  # noqa: E402

from acc_megatron.config import ParallelConfig  # noqa: E402
from acc_megatron.mesh.layout import Layout, Ranks, build_layout  # noqa: E402
from acc_megatron.mesh.torchrun_environment import world_size  # noqa: E402


@contextmanager
def process_groups(parallel: ParallelConfig, *, seed: int = 0, timeout_seconds: int = 600) -> Iterator[Layout]:
    """Start Megatron's process groups over the processes of torchrun, or over this process only; ends them on exit.

    Raises ConfigError, before any group starts, if the layout does not fit the world.
    """
    layout = build_layout(parallel, world_size())
    timeout = datetime.timedelta(seconds=timeout_seconds)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        model_parallel_groups(parallel, layout, seed=seed, timeout_seconds=timeout_seconds)
        yield layout
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def model_parallel_groups(
    parallel: ParallelConfig, layout: Layout, *, seed: int = 0, timeout_seconds: float = 600
) -> None:
    """Start Megatron's groups for a layout within torch.distributed's world, and seed its random states."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        context_parallel_size=layout.context,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=layout.expert_tensor,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None,
        hierarchical_context_parallel_sizes=parallel.hierarchical_context or None,
        create_gloo_process_groups=False,
        distributed_timeout_minutes=timeout_seconds / 60,
    )
    model_parallel_cuda_manual_seed(seed + 1)


def own_ranks() -> Ranks:
    """Return this process's place on the axes that shard parameters."""
    return Ranks(
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        expert_tensor=parallel_state.get_expert_tensor_parallel_rank(),
        expert=parallel_state.get_expert_model_parallel_rank(),
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
    )
