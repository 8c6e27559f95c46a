"""A PEFT folder: adapter_config.json and adapter_model.safetensors, as `peft` and vLLM read them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from acc_megatron.adapter.parts import PARTS, leaves_of, part_of
from acc_megatron.adapter.saved import SavedAdapter, Shapes
from acc_megatron.checkpoint.huggingface import read_shapes
from acc_megatron.checkpoint.locate import read_json
from acc_megatron.errors import CheckpointError

CONFIG, WEIGHTS, ORIGIN = "adapter_config.json", "adapter_model.safetensors", "acc_megatron.json"
# settings of peft that change what the factors compute, with the only value that is supported
PLAIN: dict[str, Any] = {
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
}


def adapter_config(state: dict[str, Any], dropout: float) -> dict[str, Any]:
    """Return adapter_config.json of a checkpoint's `state`."""
    adapter = state["adapter"]
    alpha = adapter["alpha"]
    leaves = {part: leaves_of(part) for part in PARTS}
    # norms are modules of several names, which PEFT wants one by one
    whole = [leaf for part in adapter["trained"] for leaf in (_NORMS if part == "norms" else leaves[part])]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": (state.get("base") or {}).get("checkpoint"),
        "r": adapter["rank"],
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        # peft applies no dropout to experts and routers, and refuses a value for them
        "lora_dropout": 0.0 if {"experts", "router"} & set(adapter["targets"]) else dropout,
        "target_modules": sorted({leaf for part in adapter["targets"] for leaf in leaves[part]}),
        "modules_to_save": sorted(whole) or None,
        "inference_mode": True,
        "init_lora_weights": True,
        **PLAIN,
    }


_NORMS = ("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "norm")


class PeftFolder:
    """The adapter in a PEFT folder, for the base whose Hugging Face tensors have `shapes`.

    Raises CheckpointError for a missing file, a setting that is not plain LoRA, a tensor that is missing, unknown or of
    the wrong shape, and a part of which only some matrices have factors. Reads headers only.
    """

    def __init__(self, path: Path, shapes: Shapes) -> None:
        self.path, self.config = path, read_json(path / CONFIG)
        self._check_settings()
        file = path / WEIGHTS
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing: only safetensors files are read; save the adapter again with peft"
            )
        found = read_shapes(file)
        names = SavedAdapter(shapes, self.config["r"], frozenset(), frozenset())
        matrices = [hf_name for hf_name, shape in shapes.items() if len(shape) == 2]
        targets = {part_of(name) for name in matrices if any(one.peft_name in found for one in names.factors(name))}
        trained = {part_of(name) for name in shapes if f"base_model.model.{name}" in found}
        self.adapter = SavedAdapter(shapes, self.config["r"], frozenset(targets), frozenset(trained))
        self._check_tensors(found)

    @property
    def origin(self) -> dict[str, Any]:
        """What export wrote about the base; empty in a folder of another program."""
        return json.loads((self.path / ORIGIN).read_bytes()) if (self.path / ORIGIN).is_file() else {}

    def read(self, peft_name: str) -> torch.Tensor:
        """Return a tensor; raises CheckpointError if a value is NaN or infinite."""
        with safe_open(self.path / WEIGHTS, framework="pt") as tensors:
            values = tensors.get_tensor(peft_name)
        if not torch.isfinite(values).all():
            raise CheckpointError(f"{self.path / WEIGHTS}: {peft_name} has values that are NaN or infinite")
        return values

    def _check_settings(self) -> None:
        file, config = self.path / CONFIG, self.config
        if config.get("peft_type") != "LORA":
            raise CheckpointError(f"{file}: peft_type = {config.get('peft_type')!r} is not supported, only 'LORA' is")
        for key in ("r", "lora_alpha"):
            if not isinstance(config.get(key), int | float) or config[key] <= 0:
                raise CheckpointError(f"{file}: {key} = {config.get(key)!r} must be a number greater than 0")
        for key, plain in PLAIN.items():
            if config.get(key) not in (plain, None):
                raise CheckpointError(f"{file}: {key} = {config[key]!r} is not supported, only {plain!r} is")

    def _check_tensors(self, found: Shapes) -> None:
        file = self.path / WEIGHTS
        expected = {tensor.peft_name: tensor.shape for tensor in self.adapter.tensors()}
        if not self.adapter.targets:
            raise CheckpointError(
                f"{file} has no factors of the base's matrices; its first tensor is {next(iter(found), 'missing')}"
            )
        for name, shape in expected.items():
            if name not in found:
                raise CheckpointError(
                    f"{file} lacks {name}: all matrices of a part need factors; the folder has factors of "
                    f"{', '.join(sorted(self.adapter.targets))}"
                )
            if found[name] != shape:
                raise CheckpointError(f"{file}: {name} has shape {found[name]}, rank and base require {shape}")
        if extra := [name for name in found if name not in expected]:
            fused = (
                ": experts need one matrix each, as peft stores them for transformers 4"
                if "experts" in extra[0]
                else ""
            )
            raise CheckpointError(f"{file} has {len(extra)} unknown tensors, the first is {extra[0]}{fused}")
