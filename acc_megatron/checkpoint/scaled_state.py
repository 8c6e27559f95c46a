"""Scales of optimizer state in fp8 or float16: one scale per tensor and rank, stored next to the values.

A rank of the same layout finds its own boxes and takes their bytes and their scale. A rank of another layout reads
parts of several boxes, each with its scale; it then computes a scale of its own, which rounds every value once more.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint import load as load_tensors
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata

from acc_megatron.checkpoint.optimizer_state import PREFIX, SCALES, PlacedTensor
from acc_megatron.model.stored_numbers import read_scaled, write_scaled

Box = tuple[tuple[int, ...], tuple[int, ...]]  # offset and size in the complete parameter


def scale_tensors(placed: Sequence[PlacedTensor]) -> list[ShardedTensor]:
    """Return the scale `[1]` of every box that has one, under a key that contains the place of the box."""
    return [
        ShardedTensor.from_rank_offsets(
            _key(box.key, (box.global_offset, box.local_shape)), entry.scale, replica_id=box.replica_id
        )
        for entry in placed
        if entry.scale is not None
        for box in entry.boxes
    ]


def load_scales(folder: Path, placed: Sequence[PlacedTensor]) -> None:
    """Make the values that were loaded into `placed` those that were saved, by the scales in the checkpoint."""
    scaled = [entry for entry in placed if entry.scale is not None]
    if not scaled:
        return
    stored = FileSystemReader(folder).read_metadata().state_dict_metadata
    sources = {id(box): list(_overlapping(stored[box.key], box)) for entry in scaled for box in entry.boxes}
    keys = {_key(box.key, source) for entry in scaled for box in entry.boxes for source in sources[id(box)]}
    tensors = {key: torch.zeros(1) for key in keys}
    load_tensors(tensors, storage_reader=FileSystemReader(folder), no_dist=True)
    scales = {key: value.item() for key, value in tensors.items()}
    for entry in scaled:
        assert entry.scale is not None
        own = {scales[_key(box.key, source)] for box in entry.boxes for source in sources[id(box)]}
        if len(own) == 1:
            entry.scale.fill_(own.pop())
        else:
            _round_again(entry, sources, scales)


def _round_again(entry: PlacedTensor, sources: dict[int, list[Box]], scales: dict[str, float]) -> None:
    """Give a range that was saved with several scales one of its own."""
    wide, taken = read_scaled(entry.flat, None), 0
    for box in entry.boxes:
        part = wide[taken : taken + math.prod(box.local_shape)].view(box.local_shape)
        taken += part.numel()
        for source in sources[id(box)]:
            part[_inside(box, source)] *= scales[_key(box.key, source)]
    assert taken == wide.numel(), "the boxes of a range contain it completely"
    write_scaled(wide, entry.flat, entry.scale)


def _key(key: str, box: Box) -> str:
    offset, size = ("_".join(map(str, numbers)) for numbers in box)
    return f"{SCALES}{key.removeprefix(PREFIX)}.{offset}.{size}"


def _overlapping(stored: object, box: ShardedTensor) -> Iterator[Box]:
    """Yield the stored boxes of the same tensor that contain elements of `box`."""
    assert isinstance(stored, TensorStorageMetadata)
    for chunk in stored.chunks:
        source = _box(chunk)
        if all(part.start < part.stop for part in _inside(box, source)):
            yield source


def _box(chunk: ChunkStorageMetadata) -> Box:
    return tuple(chunk.offsets), tuple(chunk.sizes)


def _inside(box: ShardedTensor, source: Box) -> tuple[slice, ...]:
    """Return the part of `box` that `source` contains, in the coordinates of `box`."""
    return tuple(
        slice(max(start - own, 0), max(0, min(start + size - own, width)))
        for own, width, start, size in zip(box.global_offset, box.local_shape, *source, strict=True)
    )
