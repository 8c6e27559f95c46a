"""Single tensors of a saved checkpoint, whatever layout saved it, without building a model."""

from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from acc_megatron.checkpoint.weight_map import place_in_checkpoint
from acc_megatron.errors import CheckpointError

# where TE's layers keep the norm that they fuse into a linear layer
FUSED_NORMS = {"input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight"}


class SavedTensors:
    """Reads whole parameters out of a checkpoint by the name they have in a process that holds the whole model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = FileSystemReader(folder)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)

    def read(self, name: str) -> torch.Tensor:
        """One parameter, joined from the pieces that ranks saved; CheckpointError when it is not there."""
        key, place = place_in_checkpoint(name)
        for plain, fused in FUSED_NORMS.items():
            if key not in self._metadata.state_dict_metadata:
                key = key.replace(plain, fused)
        saved = self._metadata.state_dict_metadata.get(key)
        if not isinstance(saved, TensorStorageMetadata):
            raise CheckpointError(f"{self.folder} holds no {key}")
        shape = saved.size[len(place) :]
        whole = torch.empty((1,) * len(place) + tuple(shape), dtype=saved.properties.dtype)
        chunk = ChunkStorageMetadata(torch.Size((*place, *(0 for _ in shape))), whole.shape)
        plan = LoadPlan(create_read_items_for_chunk_list(key, saved, [chunk]))
        self._reader.read_data(plan, _Into(whole)).wait()
        return whole.reshape(shape)


class _Into(LoadPlanner):
    """Tells the reader where each piece goes."""

    def __init__(self, target: torch.Tensor) -> None:
        self.target = target

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        target = self.target
        for dim, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            target = target.narrow(dim, offset, length)
        return target

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None: ...
    def set_up_planner(self, *args: object, **kwargs: object) -> None: ...
    def create_local_plan(self) -> LoadPlan:
        raise NotImplementedError

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        raise NotImplementedError

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        raise NotImplementedError

    def load_bytes(self, read_item: ReadItem, value: object) -> None:
        raise NotImplementedError
