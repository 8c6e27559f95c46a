"""Hugging Face folders read: which tensors, in which files, and a rank's part of each straight into its parameter."""

import json
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from safetensors import SafetensorError, safe_open

from acc_megatron.checkpoint.huggingface_config import read_model_config
from acc_megatron.checkpoint.weight_map import Ranks, entry_for, fused_name, fused_shapes, hf_shapes, own_range
from acc_megatron.errors import CheckpointError
from acc_megatron.layout import Layout

BLOCK_BYTES = 16 << 20
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class HuggingFaceFolder:
    """A Qwen3-MoE folder: its config, its files, and parts of its tensors by name.

    Raises CheckpointError for another architecture, a missing file or tensor, a tensor of another shape or one that
    the model has no place for, and anything but safetensors; all of it from the headers, before a weight is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = read_model_config(path)
        self.files: dict[str, list[str]] = {}  # tensors by file, in the order of the file
        self._file_of: dict[str, Path] = {}
        found: dict[str, tuple[int, ...]] = {}
        for file in self._list_files():
            shapes = read_shapes(file)
            self.files[file.name] = list(shapes)
            self._file_of |= dict.fromkeys(shapes, file)
            found |= shapes
        self.has_fused_experts = any(name.endswith(".mlp.experts.gate_up_proj") for name in found)
        self._check(found)

    def _list_files(self) -> list[Path]:
        index, single = self.path / INDEX, self.path / "model.safetensors"
        if index.is_file():
            try:
                names = {Path(file).name for file in json.loads(index.read_bytes())["weight_map"].values()}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise CheckpointError(f"{index} is damaged: it holds no weight_map of files") from None
            files = [self.path / name for name in sorted(names)]
        else:
            files = [single]
        for file in files:
            if file.suffix in PICKLED:
                raise CheckpointError(f"{index} names {file.name}: only safetensors are read, never pickled weights")
            if not file.is_file():
                pickled = sorted(other.name for other in self.path.iterdir() if other.suffix in PICKLED)
                there = f" ({pickled[0]} is there)" if pickled else ""
                raise CheckpointError(
                    f"{file} is missing: only safetensors are read, never pickled weights{there}; fetch it again"
                )
        return files

    def _check(self, found: dict[str, tuple[int, ...]]) -> None:
        """Every tensor of the model is there in its shape, and nothing that would be dropped."""
        expected = fused_shapes(self.model) if self.has_fused_experts else hf_shapes(self.model)
        missing = [name for name in expected if name not in found]
        if missing:
            raise CheckpointError(f"{self.path} lacks {len(missing)} tensors, the first is {missing[0]}")
        for name, shape in expected.items():
            if found[name] != shape:
                file = self._file_of[name]
                raise CheckpointError(f"{file}: {name} has shape {found[name]}, config.json makes it {shape}")
        tied = {"lm_head.weight"} if self.model.tie_word_embeddings else set()  # some write the embedding twice
        extra = [name for name in found if name not in expected and name not in tied and "inv_freq" not in name]
        if extra:
            raise CheckpointError(
                f"{self.path} holds {len(extra)} tensors that qwen3_moe has no place for, the first is {extra[0]}"
            )

    def read_into(self, target: torch.Tensor, name: str, ranges: tuple[slice, ...]) -> None:
        """Copy a part of a tensor, by its per-expert name, in blocks: what is mapped and copied at once stays small."""
        stored, expert, first_row = self._place(name)
        start, stop = ranges[0].start + first_row, ranges[0].stop + first_row
        row_bytes = max(1, target[0].numel() * target.element_size()) if target.dim() > 1 else 1
        step = max(1, BLOCK_BYTES // row_bytes)
        for row in range(start, stop, step):
            rows = slice(row, min(row + step, stop))
            index = (rows, *ranges[1:]) if expert is None else (expert, rows, *ranges[1:])
            with safe_open(self._file_of[stored], framework="pt") as tensors:
                target[row - start : rows.stop - start] = tensors.get_slice(stored)[index]

    def _place(self, name: str) -> tuple[str, int | None, int]:
        """Where a tensor is stored: name, expert when it is one of several there, and its first row."""
        if not self.has_fused_experts or (fused := fused_name(name)) is None:
            return name, None, 0
        stored, expert, half = fused
        return stored, expert, self.model.moe_intermediate_size if half else 0


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file in the order of their bytes; CheckpointError when it is cut or broken."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.offset_keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged ({file.stat().st_size} bytes): {error}; fetch it again") from None


@torch.no_grad()
def load_weights(folder: HuggingFaceFolder, built: GPTModel, layout: Layout, ranks: Ranks) -> None:
    """Copy this rank's part of every parameter from a Hugging Face folder; the rest is never read."""
    model, shapes = folder.model, hf_shapes(folder.model)
    first_layer = built.decoder.layers[0].layer_number - 1
    first_expert = ranks.expert * (model.num_experts // layout.expert)
    for name, parameter in built.named_parameters():
        entry = entry_for(name, first_layer, first_expert, model)
        parts = [own_range(entry.cut, shapes[hf_name], layout, ranks) for hf_name in entry.hf_names]
        if len(parts) == 1:
            folder.read_into(parameter, entry.hf_names[0], parts[0])
            continue
        cuts = [parameter.new_empty([r.stop - r.start for r in ranges]) for ranges in parts]
        for cut, hf_name, ranges in zip(cuts, entry.hf_names, parts, strict=True):
            folder.read_into(cut, hf_name, ranges)
        parameter.copy_(entry.join(*cuts))
