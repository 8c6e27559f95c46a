"""config.json of a Hugging Face folder: reading it into a ModelConfig, and making it for an export."""

import json
from pathlib import Path
from typing import Any

from acc_megatron.config import ModelConfig
from acc_megatron.errors import CheckpointError
from acc_megatron.model.families import FAMILIES


def read_model_config(path: Path) -> ModelConfig:
    """Read config.json of a folder; raises CheckpointError for a key that is missing or not supported."""
    file = path / "config.json"
    if not file.is_file():
        if path.is_dir():
            raise CheckpointError(f"{path} has no config.json: it is not a Hugging Face model folder")
        raise CheckpointError(
            f"{path} is not a folder: download the model first, for example "
            f"'hf download {path if len(path.parts) == 2 and not path.is_absolute() else 'Qwen/Qwen3-30B-A3B'} "
            "--local-dir FOLDER' (package huggingface_hub)"
        )
    try:
        hf = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    model_type = str(hf.get("model_type")) if isinstance(hf, dict) else "none"
    if model_type not in FAMILIES:
        supported = ", ".join(map(repr, FAMILIES))
        raise CheckpointError(f"{file}: model_type {model_type!r} is not supported; supported: {supported}")
    return FAMILIES[model_type].config_from_hf(hf, file)


def hf_config(model: ModelConfig, dtype_name: str, eos_id: int | None, pad_id: int | None) -> dict[str, Any]:
    """Return config.json of a model, in names that transformers 4 and 5, vLLM and SGLang read."""
    return FAMILIES[model.family].config_to_hf(model) | {
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": dtype_name,
    }
