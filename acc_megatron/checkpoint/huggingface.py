"""Reading a Hugging Face folder: which tensors it has, in which files, and one rank's part of each."""

import json
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from safetensors import SafetensorError, safe_open

from acc_megatron.checkpoint.huggingface_config import read_model_config
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.layout import Layout, Ranks
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.weight_map import rank_part

BLOCK_BYTES = 16 << 20
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class HuggingFaceFolder:
    """A model folder: its config, its files, and parts of its tensors by name.

    Raises CheckpointError for an unsupported model type, a missing file or tensor, a tensor of the wrong shape, a
    tensor that the model does not have, and any format other than safetensors. All checks read headers only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = read_model_config(path)
        self.weights = FAMILIES[self.model.family].weight_map(self.model)
        self.files: dict[str, list[str]] = {}  # tensor names by file, in the order of the file
        self._file_of: dict[str, Path] = {}
        found: dict[str, tuple[int, ...]] = {}
        for file in self._list_files():
            shapes = read_shapes(file)
            self.files[file.name] = list(shapes)
            self._file_of |= dict.fromkeys(shapes, file)
            found |= shapes
        only_fused = self.weights.shapes(is_fused=True).keys() - self.weights.shapes().keys()
        self.is_fused = not only_fused.isdisjoint(found)
        self._check(found)

    def _list_files(self) -> list[Path]:
        index, single = self.path / INDEX, self.path / "model.safetensors"
        if index.is_file():
            try:
                names = {Path(file).name for file in json.loads(index.read_bytes())["weight_map"].values()}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise CheckpointError(f"{index} is damaged: it has no weight_map from tensors to files") from None
            files = [self.path / name for name in sorted(names)]
        else:
            files = [single]
        for file in files:
            if file.suffix in PICKLED:
                raise CheckpointError(
                    f"{index} names {file.name}: only safetensors files are read, not pickled weights"
                )
            if not file.is_file():
                pickled = sorted(other.name for other in self.path.iterdir() if other.suffix in PICKLED)
                present = f" (the folder has {pickled[0]})" if pickled else ""
                raise CheckpointError(
                    f"{file} is missing: only safetensors files are read, not pickled weights{present}; "
                    "download the folder again"
                )
        return files

    def _check(self, found: dict[str, tuple[int, ...]]) -> None:
        """Check that every tensor of the model is present in its shape, and that no tensor would be ignored."""
        expected = self.weights.shapes(is_fused=self.is_fused)
        missing = [name for name in expected if name not in found]
        if missing:
            raise CheckpointError(f"{self.path} lacks {len(missing)} tensors, the first is {missing[0]}")
        for name, shape in expected.items():
            if found[name] != shape:
                file = self._file_of[name]
                raise CheckpointError(f"{file}: {name} has shape {found[name]}, config.json requires {shape}")
        tied = {"lm_head.weight"} if self.model.tie_word_embeddings else set()  # some folders store the embedding twice
        extra = [name for name in found if name not in expected and name not in tied and "inv_freq" not in name]
        if extra:
            raise CheckpointError(
                f"{self.path} has {len(extra)} tensors that model type {self.model.family!r} does not have, the first "
                f"is {extra[0]}"
            )

    def read_into(self, target: torch.Tensor, name: str, ranges: tuple[slice, ...]) -> None:
        """Copy a part of a tensor, by its per-expert name, in blocks of 16 MiB to bound the memory that is mapped.

        Raises CheckpointError with the tensor's name if a value is NaN or infinite.
        """
        place = self.weights.fused_place(name) if self.is_fused else None
        stored, first_row = (place.name, place.first_row) if place else (name, 0)
        start, stop = ranges[0].start + first_row, ranges[0].stop + first_row
        row_bytes = max(1, target[0].numel() * target.element_size()) if target.dim() > 1 else 1
        step = max(1, BLOCK_BYTES // row_bytes)
        for row in range(start, stop, step):
            rows = slice(row, min(row + step, stop))
            index = (place.expert, rows, *ranges[1:]) if place else (rows, *ranges[1:])
            with safe_open(self._file_of[stored], framework="pt") as tensors:
                block = tensors.get_slice(stored)[index]
            parts = block.flatten().split(1 << 20)  # the check of a complete block would need its memory once more
            num_bad = sum(part.numel() - int(torch.isfinite(part).sum()) for part in parts)
            if num_bad:
                raise CheckpointError(
                    f"{self._file_of[stored]}: {stored} has {num_bad} values that are NaN or infinite, from row {row} "
                    "on: download the file again, or import a checkpoint from before the model diverged"
                )
            target[row - start : rows.stop - start] = block


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a safetensors file in the order of their bytes; raises CheckpointError if it is damaged."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.offset_keys()}
    except SafetensorError as error:
        size = file.stat().st_size
        raise CheckpointError(f"{file} is damaged ({size} bytes): {error}; download it again") from None


@torch.no_grad()
def load_weights(folder: HuggingFaceFolder, built: GPTModel, layout: Layout, ranks: Ranks) -> None:
    """Copy this rank's part of every parameter from a Hugging Face folder; other parts are not read."""
    shapes = folder.weights.shapes()
    first_layer = built.decoder.layers[0].layer_number - 1
    first_expert = ranks.expert * (folder.model.num_experts // layout.expert)
    for name, parameter in built.named_parameters():
        entry = folder.weights.entry(name, first_layer=first_layer, first_expert=first_expert)
        parts = [rank_part(entry.split, shapes[hf_name], layout, ranks) for hf_name in entry.hf_names]
        if len(parts) == 1:
            folder.read_into(parameter, entry.hf_names[0], parts[0])
            continue
        tensors = [parameter.new_empty([r.stop - r.start for r in ranges]) for ranges in parts]
        for tensor, hf_name, ranges in zip(tensors, entry.hf_names, parts, strict=True):
            folder.read_into(tensor, hf_name, ranges)
        parameter.copy_(entry.join(*tensors))
