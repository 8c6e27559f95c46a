"""Random adapters as PEFT folders, written name by name as peft does for transformers 4, and peft's own model."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def write_peft_folder(
    path: Path, shapes: dict[str, tuple[int, ...]], targets: tuple[str, ...], *, trained: tuple[str, ...] = (),
    rank: int = 4, alpha: int = 8, seed: int = 0,
) -> Path:  # fmt: skip
    """Write random factors of all matrices whose last name is in `targets`; `trained` modules have random weights.

    `shapes` are the Hugging Face tensors of the base.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    tensors = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        leaf = module.rpartition(".")[2]
        prefix = f"base_model.model.{module}"
        if leaf in targets and leaf == "embed_tokens":
            tensors[f"{prefix}.lora_embedding_A"] = random(rank, shape[0])
            tensors[f"{prefix}.lora_embedding_B"] = random(shape[1], rank)
        elif leaf in targets:
            tensors[f"{prefix}.lora_A.weight"] = random(rank, shape[1])
            tensors[f"{prefix}.lora_B.weight"] = random(shape[0], rank)
        elif leaf in trained:
            tensors[f"base_model.model.{name}"] = random(*shape)
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": rank, "lora_alpha": alpha,
        "lora_dropout": 0.0, "target_modules": list(targets), "modules_to_save": list(trained) or None, "bias": "none",
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def with_peft(model: Any, folder: Path) -> Any:
    """Load a PEFT folder with peft; every factor can be trained."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=False)
