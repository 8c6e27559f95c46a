"""What a checkpoint has of an adapter: its factors and the weights that it trains in full, by Hugging Face names.

Keys are `adapter.MODULE.lora_A`, `adapter.MODULE.lora_B` and `adapter.MODULE.weight`. Factors of experts are one tensor
a layer, with the experts in front. So a checkpoint depends neither on the layout nor on Megatron's names.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor

from acc_megatron.adapter.attach import ADAPTERS, factors_of
from acc_megatron.adapter.factors import Factors, Place
from acc_megatron.model.weight_map import Split

PREFIX = "adapter"


def has_adapter(chunks: list[torch.nn.Module]) -> bool:
    """Return whether the chunks belong to a run with an adapter."""
    return any(hasattr(getattr(chunk, "module", chunk), ADAPTERS) for chunk in chunks)


def without_adapter(state: ShardedStateDict) -> ShardedStateDict:
    """Return Megatron's state of a chunk without the factors."""
    return {name: entry for name, entry in state.items() if not name.startswith(f"{ADAPTERS}.")}


def adapter_state(chunk: torch.nn.Module) -> ShardedStateDict:
    """Return the factors and the trained weights of a chunk, by their name in the chunk."""
    state: ShardedStateDict = {}
    for name, factors in factors_of(chunk).items():
        for matrix in factors.matrices:
            for which in "AB":
                key = f"{PREFIX}.{matrix.module}.lora_{which}"
                state[f"{ADAPTERS}.{name}.{matrix.leaf}_{which}"] = _of_factor(factors, key, matrix, which)
    model: Any = getattr(chunk, "module", chunk)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith(f"{ADAPTERS}."):
            hf_name, split = model.trained_in_full[name]
            # the last stage of a pipeline has a copy of a tied embedding
            is_copy = name == "output_layer.weight" and hf_name != "lm_head.weight"
            state[name] = _of_weight(f"{PREFIX}.{hf_name}", parameter, split, is_copy=is_copy)
    return state


def _of_factor(factors: Factors, key: str, matrix: Any, which: str) -> ShardedTensor:
    place: Place = factors.place
    parameter = factors.factor(matrix, which)
    is_split = place.split == (1 if which == "A" else 0)
    offsets = []
    if place.experts is not None:
        first, total = place.experts
        offsets.append((0, first // len(parameter), total // len(parameter)))
    if is_split and place.size > 1:
        offsets.append((parameter.ndim - (1 if which == "A" else 2), place.rank, place.size))
    replica = 0 if is_split else place.rank
    return _sharded(key, parameter, offsets, replica, is_expert=place.experts is not None)


def _of_weight(key: str, parameter: torch.nn.Parameter, split: Split | None, *, is_copy: bool) -> ShardedTensor:
    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    offsets = [(split.dim, rank, size)] if split is not None and size > 1 else []
    sharded = _sharded(key, parameter, offsets, 0 if split is not None else rank, is_expert=False)
    if is_copy:
        sharded.replica_id = (1, *sharded.replica_id[1:])
    return sharded


def _sharded(
    key: str, parameter: torch.nn.Parameter, offsets: list[tuple[int, int, int]], replica: int, *, is_expert: bool
) -> ShardedTensor:
    data = (
        parallel_state.get_expert_data_parallel_rank()
        if is_expert
        else parallel_state.get_data_parallel_rank(with_context_parallel=True)
    )
    return ShardedTensor.from_rank_offsets(key, parameter, *offsets, replica_id=(0, replica, data))
