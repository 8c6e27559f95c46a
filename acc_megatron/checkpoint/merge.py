"""Adding an adapter to the weights of its base, one tensor at a time."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from acc_megatron.adapter.fingerprint import checksum, digest
from acc_megatron.adapter.parts import part_of
from acc_megatron.adapter.saved import SavedAdapter, Shapes
from acc_megatron.checkpoint import locate
from acc_megatron.checkpoint.saved_tensors import SavedTensors
from acc_megatron.errors import CheckpointError
from acc_megatron.model.weight_map import WeightMap


def saved_adapter(folder: Path, shapes: Shapes) -> tuple[dict[str, Any], SavedAdapter]:
    """Return the state of an adapter's checkpoint and its tensors; raises CheckpointError for another checkpoint."""
    state = locate.read_state(folder)
    if "adapter" not in state:
        raise CheckpointError(f"{folder} is not the checkpoint of an adapter: leave out --adapter and --merge")
    adapter = state["adapter"]
    return state, SavedAdapter(shapes, adapter["rank"], frozenset(adapter["targets"]), frozenset(adapter["trained"]))


class Merge:
    """An adapter whose products are added to tensors of the base in float32; also collects the base's checksums."""

    def __init__(self, folder: Path, weights: WeightMap, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self.state, self.adapter = saved_adapter(folder, weights.shapes())
        self._read = lru_cache(maxsize=2)(SavedTensors(folder).read_key)  # the stacked factors of a layer's experts
        self._sums: dict[str, int] = {}

    def apply(self, hf_name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a complete tensor of the model with the adapter, for the base's tensor."""
        if hf_name not in self._sums:
            self._sums[hf_name] = checksum(tensor.to(self.dtype))  # as the run that trained the adapter read it
        part = part_of(hf_name)
        if part in self.adapter.trained:
            return self._read(f"adapter.{hf_name}")
        if part not in self.adapter.targets:
            return tensor
        first, second = (
            self._read(saved.key, () if saved.expert is None else (saved.expert,)).float()
            for saved in self.adapter.factors(hf_name)
        )
        product = second @ first * (self.state["adapter"]["alpha"] / self.adapter.rank)
        return tensor.float() + (product.T if part == "embeddings" else product)

    def other_base(self, base: Path) -> str | None:
        """Return why the tensors given to `apply` on all ranks are not the adapter's base, or None; collective.

        An adapter that was imported from a folder of another program has no hash of its base to compare with.
        """
        gathered: list[dict[str, int]] = [{}] * dist.get_world_size()
        dist.all_gather_object(gathered, self._sums)
        found = digest({name: value for part in gathered for name, value in part.items()})
        expected = (self.state.get("base") or {}).get("sha256")
        if expected in (None, found):
            return None
        return (
            f"{self.folder} is an adapter of the base {self.state['base']['checkpoint']} with hash {expected}, but "
            f"{base} has hash {found}: give its base with --base"
        )


class MergedTensors(SavedTensors):
    """The parameters of a checkpoint with an adapter added."""

    def __init__(self, folder: Path, weights: WeightMap, merge: Merge) -> None:
        super().__init__(folder)
        self.weights, self.merge = weights, merge

    def read(self, name: str) -> torch.Tensor:
        """Return one parameter of the model with the adapter."""
        entry, stored = self.weights.entry(name), super().read(name)
        parts = zip(entry.hf_names, entry.separate(stored), strict=True)
        return entry.join(*(self.merge.apply(hf_name, part) for hf_name, part in parts))
