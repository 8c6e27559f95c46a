"""A hash of the base's weights that does not depend on layout, dtype or file names."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from acc_megatron.adapter.attach import ADAPTERS
from acc_megatron.config import ModelConfig
from acc_megatron.mesh.layout import Layout, Ranks
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.weight_map import rank_part

ROW, COLUMN = -7046029254386353131, -4417276706812531889  # odd, so that a product with them loses no bit
BLOCK_ELEMENTS = 1 << 20


def fingerprint(model: ModelConfig, layout: Layout, ranks: Ranks, chunks: list[torch.nn.Module]) -> str:
    """Return the SHA-256 of the checksums of all Hugging Face tensors of the base, by name; collective.

    Reads weights in float32, to which bfloat16 converts without loss: a base has the same hash in both.
    """
    own: dict[str, int] = {}
    for name, tensor, first in _own_parts(model, layout, ranks, chunks):
        own[name] = _wrap(own.get(name, 0) + checksum(tensor, first))
    gathered: list[dict[str, int]] = [{}] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    sums: dict[str, int] = {}
    for part in gathered:
        for name, value in part.items():
            sums[name] = _wrap(sums.get(name, 0) + value)
    return digest(sums)


def digest(sums: dict[str, int]) -> str:
    """Return the hash of the tensors' checksums."""
    return hashlib.sha256("".join(f"{name} {sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()


@torch.no_grad()
def checksum(tensor: torch.Tensor, first: tuple[int, ...] | None = None) -> int:
    """Return a sum over the elements that depends on each one's bits and place; sums of parts add up, modulo 2^64.

    `first` is the place of the part's first element in the complete tensor.
    """
    matrix = tensor if tensor.ndim == 2 else tensor[None]
    place = (0, 0) if first is None else first if tensor.ndim == 2 else (0, *first)
    columns = _mix((torch.arange(matrix.shape[1], device=tensor.device) + place[1] + 1) * COLUMN)
    total = 0
    step = max(1, BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), step):
        block = matrix[start : start + step].float().contiguous().view(torch.int32).long()
        rows = _mix((torch.arange(len(block), device=tensor.device) + place[0] + start + 1) * ROW)
        total += int(_mix((block + rows[:, None]) ^ columns).sum())
    return _wrap(total)


def _mix(values: torch.Tensor) -> torch.Tensor:
    """Spread every bit of int64 values over the others (the finaliser of SplitMix64, with arithmetic shifts)."""
    values = (values ^ (values >> 30)) * -4658895280553007687
    values = (values ^ (values >> 27)) * -7723592293110705685
    return values ^ (values >> 31)


def _wrap(value: int) -> int:
    """Return the signed 64-bit number that is equal modulo 2^64."""
    return (value + 2**63) % 2**64 - 2**63


def _own_parts(
    model: ModelConfig, layout: Layout, ranks: Ranks, chunks: list[torch.nn.Module]
) -> Iterator[tuple[str, torch.Tensor, tuple[int, ...]]]:
    """Yield this rank's parts of Hugging Face tensors with their place, each part on one of its replicas only."""
    weights = FAMILIES[model.family].weight_map(model)
    shapes = weights.shapes()
    inner: list[Any] = [getattr(chunk, "module", chunk) for chunk in chunks]
    for chunk in inner:
        first_layer = chunk.decoder.layers[0].layer_number - 1
        first_expert = ranks.expert * (model.num_experts // layout.expert)
        for name, parameter in chunk.named_parameters():
            if name.startswith(f"{ADAPTERS}."):
                continue
            if model.tie_word_embeddings and name == "output_layer.weight":
                continue  # the last stage's copy of the embedding
            entry = weights.entry(name, first_layer=first_layer, first_expert=first_expert)
            if _is_replica(entry.split is not None, ".experts." in name, ranks):
                continue
            for hf_name, part in zip(entry.hf_names, entry.separate(parameter.detach()), strict=True):
                place = rank_part(entry.split, shapes[hf_name], layout, ranks)
                yield hf_name, part, tuple(extent.start for extent in place)


def _is_replica(is_split: bool, is_expert: bool, ranks: Ranks) -> bool:
    """Return whether another rank has the same part and yields it."""
    if is_expert:
        return parallel_state.get_expert_data_parallel_rank() != 0 or (not is_split and ranks.expert_tensor != 0)
    data = parallel_state.get_data_parallel_rank(with_context_parallel=True)
    return data != 0 or (not is_split and ranks.tensor != 0)
