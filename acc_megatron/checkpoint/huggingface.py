"""Hugging Face folders in and out: safetensors to a rank's parameters, and a whole model to safetensors."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from acc_megatron.checkpoint.weight_map import Ranks, all_hf_names, entry_for, take_shard
from acc_megatron.config import ModelConfig
from acc_megatron.data_tools.atomic import atomic_folder, write_json
from acc_megatron.errors import CheckpointError
from acc_megatron.layout import Layout

# files beside the weights that a checkpoint carries along, so that an export is as complete as what was imported
CARRIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
MAX_FILE_BYTES = 4 << 30


class HuggingFaceFolder:
    """A Qwen3-MoE folder: its config, and its tensors by name, read one at a time.

    Raises CheckpointError for another architecture, a missing file or tensor, or anything but safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = read_model_config(path)
        self._file_of = self._index()
        missing = [name for name in all_hf_names(self.model) if not self._has(name)]
        if missing:
            raise CheckpointError(f"{path} lacks {len(missing)} tensors, the first is {missing[0]}")

    def _index(self) -> dict[str, Path]:
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            names = {Path(file).name for file in json.loads(index.read_bytes())["weight_map"].values()}
            files = [self.path / name for name in sorted(names)]
        else:
            files = [self.path / "model.safetensors"]
        found: dict[str, Path] = {}
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file} is missing; only safetensors are read, never pickled weights")
            try:
                with safe_open(file, framework="pt") as tensors:
                    found |= dict.fromkeys(tensors.keys(), file)
            except SafetensorError as error:
                raise CheckpointError(f"{file} is damaged: {error}") from None
        return found

    def _has(self, name: str) -> bool:
        return name in self._file_of or _fused(name)[0] in self._file_of

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor by its per-expert name, also when the file holds the experts of a layer fused."""
        if name in self._file_of:
            return self._read(name)
        fused, expert, half = _fused(name)
        tensor = self._read(fused, expert)
        return tensor if half is None else tensor.chunk(2)[half]

    def _read(self, name: str, index: int | None = None) -> torch.Tensor:
        with safe_open(self._file_of[name], framework="pt") as tensors:
            return tensors.get_tensor(name) if index is None else tensors.get_slice(name)[index]


def _fused(name: str) -> tuple[str, int, int | None]:
    """transformers 5 can keep a layer's experts fused: (name, expert, half of gate_up or None)."""
    prefix, found, rest = name.partition(".mlp.experts.")
    if not found:
        return "", 0, None
    expert, matrix, _ = rest.split(".")
    if matrix == "down_proj":
        return f"{prefix}.mlp.experts.down_proj", int(expert), None
    return f"{prefix}.mlp.experts.gate_up_proj", int(expert), ("gate_proj", "up_proj").index(matrix)


def read_model_config(path: Path) -> ModelConfig:
    """ModelConfig of a folder's config.json; CheckpointError names what this code does not build."""
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no config.json: it is no Hugging Face folder")
    hf = json.loads(file.read_bytes())
    if hf.get("model_type") != "qwen3_moe":
        raise CheckpointError(f"{file}: model_type is {hf.get('model_type')!r}; only 'qwen3_moe' is built")
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    refused = {
        "rope_type": rope.get("rope_type", "default") != "default",
        "mlp_only_layers": bool(hf.get("mlp_only_layers")),
        "decoder_sparse_step": hf.get("decoder_sparse_step", 1) != 1,
        "attention_bias": bool(hf.get("attention_bias")),
        "hidden_act": hf.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(hf.get("use_sliding_window")),
    }
    for key in (key for key, is_refused in refused.items() if is_refused):
        raise CheckpointError(f"{file}: {key} = {rope.get(key, hf.get(key))!r} is not supported")
    names = {field: field for field in ModelConfig.__dataclass_fields__ if field in hf}
    values: dict[str, Any] = {field: hf[name] for field, name in names.items()}
    values["num_experts"] = hf.get("num_experts", hf.get("num_local_experts"))
    values["rope_theta"] = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
    missing = [
        name
        for name, field in ModelConfig.__dataclass_fields__.items()
        if values.get(name) is None and field.default.__class__.__name__ == "_MISSING_TYPE"
    ]
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing)}")
    return ModelConfig(**values)


def hf_config(model: ModelConfig, dtype: torch.dtype, eos_id: int | None, pad_id: int | None) -> dict[str, Any]:
    """config.json of a model, in names that transformers 4 and 5, vLLM and SGLang read."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.moe_intermediate_size,
        "moe_intermediate_size": model.moe_intermediate_size,
        "num_experts": model.num_experts,
        "num_experts_per_tok": model.num_experts_per_tok,
        "norm_topk_prob": model.norm_topk_prob,
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": model.tie_word_embeddings,
        "initializer_range": model.initializer_range,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "router_aux_loss_coef": 0.0,
        "use_cache": True,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


@torch.no_grad()
def load_weights(folder: HuggingFaceFolder, built: GPTModel, layout: Layout, ranks: Ranks) -> None:
    """Copy this rank's shard of every parameter from a Hugging Face folder.

    Raises CheckpointError for a tensor of another shape, with both shapes.
    """
    model = folder.model
    offsets = _offsets(built, model, layout, ranks)
    for name, parameter in built.named_parameters():
        entry = entry_for(name, *offsets, model)
        full = entry.join(*(folder.tensor(hf_name) for hf_name in entry.hf_names))
        own = take_shard(full, entry.shard, layout, ranks)
        if own.shape != parameter.shape:
            names = ", ".join(entry.hf_names)
            raise CheckpointError(
                f"{folder.path}: {names} give {tuple(own.shape)}, the model has {tuple(parameter.shape)}"
            )
        parameter.copy_(own)


def _offsets(built: GPTModel, model: ModelConfig, layout: Layout, ranks: Ranks) -> tuple[int, int]:
    first_layer = built.decoder.layers[0].layer_number - 1
    return first_layer, ranks.expert * (model.num_experts // layout.expert)


def hf_tensors(built: GPTModel, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Every Hugging Face tensor of a model that one process holds whole."""
    for name, parameter in built.named_parameters():
        entry = entry_for(name, 0, 0, model)
        for hf_name, tensor in zip(entry.hf_names, entry.part(parameter.detach()), strict=True):
            yield hf_name, tensor.contiguous().cpu()


def write_folder(
    out: Path, built: GPTModel, model: ModelConfig, carried: Path | None, *, eos_id: int, pad_id: int
) -> None:
    """Publish a Hugging Face folder: weights in files of at most MAX_FILE_BYTES, config, and the carried files."""
    with atomic_folder(out) as folder:
        dtype = next(built.parameters()).dtype
        files: list[dict[str, torch.Tensor]] = [{}]
        room = MAX_FILE_BYTES
        for name, tensor in hf_tensors(built, model):
            size = tensor.numel() * tensor.element_size()
            if files[-1] and size > room:
                files.append({})
                room = MAX_FILE_BYTES
            files[-1][name] = tensor
            room -= size
        _write_tensors(folder, files)
        write_json(folder / "config.json", hf_config(model, dtype, eos_id, pad_id))
        for name in CARRIED if carried else ():
            assert carried is not None
            if (carried / name).is_file():
                shutil.copy2(carried / name, folder / name)


def _write_tensors(folder: Path, files: list[dict[str, torch.Tensor]]) -> None:
    if len(files) == 1:
        save_file(files[0], folder / "model.safetensors", {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    total = sum(t.numel() * t.element_size() for tensors in files for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
