"""Sharing out the tensors that several ranks have, so that every rank writes about as much as the others."""

from collections.abc import Iterable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor, ShardedTensorFactory


def share_out(weights: ShardedStateDict) -> None:
    """Choose for every weight which of its data-parallel replicas writes it; Megatron's choice is always the first.

    Changes the replica ids in place. Replicas have equal tensors in equal order, so they choose alike without
    communication; Megatron and torch check the result over all ranks when a save is planned.
    """
    placed = [entry for entry in nested_values(weights) if isinstance(entry, ShardedTensor | ShardedTensorFactory)]
    experts = {id(entry) for entry in placed if not getattr(entry.data, "allreduce", True)}
    _share_out(
        (entry for entry in placed if id(entry) not in experts),
        parallel_state.get_data_parallel_world_size(with_context_parallel=True),
    )
    _share_out(
        (entry for entry in placed if id(entry) in experts), parallel_state.get_expert_data_parallel_world_size()
    )


def _share_out(entries: Iterable[Any], num_replicas: int) -> None:
    """`entries` are Megatron's sharded tensors and factories."""
    loads = [0] * num_replicas
    for entry in entries:
        assert isinstance(entry.data, torch.Tensor) and isinstance(entry.replica_id, tuple)
        *others, own = entry.replica_id
        writer = loads.index(min(loads))
        loads[writer] += entry.data.numel() * entry.data.element_size()
        entry.replica_id = (*others, int(own != writer))
