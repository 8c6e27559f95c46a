"""Reading single tensors of a checkpoint that any layout saved, without building a model."""

from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from acc_megatron.errors import CheckpointError

# names of norms that Transformer Engine fuses into a linear layer
FUSED_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}


class SavedTensors:
    """Reads complete parameters by the name that they have in a process with the complete model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = FileSystemReader(folder)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)

    def read(self, name: str) -> torch.Tensor:
        """Return one parameter, joined from the parts that ranks saved; raises CheckpointError if it is missing."""
        key, place = place_in_checkpoint(name)
        for plain, fused in FUSED_NORMS.items():
            if key not in self._metadata.state_dict_metadata:
                key = key.replace(plain, fused)
        return self.read_key(key, place)

    def read_key(self, key: str, place: tuple[int, ...] = ()) -> torch.Tensor:
        """Return a tensor by its key, at an index of the key's first dims; raises CheckpointError if it is missing."""
        saved = self._metadata.state_dict_metadata.get(key)
        if not isinstance(saved, TensorStorageMetadata):
            raise CheckpointError(f"{self.folder} has no tensor {key}")
        shape = saved.size[len(place) :]
        target = torch.empty((1,) * len(place) + tuple(shape), dtype=saved.properties.dtype)
        chunk = ChunkStorageMetadata(torch.Size((*place, *(0 for _ in shape))), target.shape)
        plan = LoadPlan(create_read_items_for_chunk_list(key, saved, [chunk]))
        self._reader.read_data(plan, _CopyPlanner(target)).wait()
        return target.reshape(shape)


def place_in_checkpoint(name: str) -> tuple[str, tuple[int, ...]]:
    """Return the key under which Megatron saves a parameter, and its index on the key's first dims: layer, expert."""
    parts = name.split(".")
    if parts[1] != "layers":
        return name, ()
    layer, rest = int(parts[2]), parts[3:]
    if rest[1] != "experts":
        return ".".join(["decoder.layers", *rest]), (layer,)
    return ".".join(["decoder.layers.mlp.experts.experts", *rest[4:]]), (layer, int(rest[3]))


class _CopyPlanner(LoadPlanner):
    """Tells the reader where to copy each part."""

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
