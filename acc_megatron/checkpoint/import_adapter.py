"""`import` of a PEFT folder: convert it to the checkpoint of an adapter, in one process."""

import dataclasses
from pathlib import Path
from typing import TypedDict

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor

from acc_megatron import __version__
from acc_megatron.adapter.parts import part_names
from acc_megatron.checkpoint import locate, store
from acc_megatron.checkpoint.huggingface_config import read_model_config
from acc_megatron.checkpoint.peft_folder import CONFIG, PeftFolder
from acc_megatron.config import ModelConfig, ParallelConfig, model_config_from_dict
from acc_megatron.errors import CheckpointError, ConfigError
from acc_megatron.mesh.torchrun_environment import world_size
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.transformer_config import DTYPES


class ImportedAdapter(TypedDict):
    """The result of the import of a PEFT folder, as `--json` prints it."""

    checkpoint: str
    parameters: int
    rank: int
    alpha: float
    targets: list[str]  # as [adapter] of a recipe names them
    trained: list[str]


def is_peft_folder(path: Path) -> bool:
    """Return whether a folder has the config of an adapter."""
    return (path / CONFIG).is_file()


def import_adapter(peft_dir: Path, out: Path, precision: str, base: Path | None = None) -> ImportedAdapter:
    """Convert a PEFT folder to a checkpoint that adapter.init_from can name, for any layout.

    `base` is the Hugging Face folder or the checkpoint of the base; by default the folder that the PEFT folder names.
    Only its shapes are read. Raises CheckpointError if the folder cannot be imported, ConfigError for more processes.
    """
    if world_size() > 1:
        raise ConfigError("the import of a PEFT folder runs in one process: start it without torchrun")
    if any(out.glob("step_*")):
        raise CheckpointError(f"{out} already contains checkpoints: choose another --out")
    model = _model_of(peft_dir, base)
    folder = PeftFolder(peft_dir, FAMILIES[model.family].weight_map(model).shapes())
    adapter, alpha = folder.adapter, float(folder.config["lora_alpha"])
    state = {
        "step": 0,
        "model": dataclasses.asdict(model),
        "code_version": __version__,
        "precision": precision,
        "adapter": {
            "rank": adapter.rank,
            "alpha": alpha,
            "targets": sorted(adapter.targets),
            "trained": sorted(adapter.trained),
        },
        "base": folder.origin.get("base"),
    }
    checkpoint = out / "step_00000000"
    with process_groups(ParallelConfig()):
        weights = _read(folder, DTYPES[precision])
        store.Save(checkpoint, [], None, state, weights={"model0": weights}).finish()
    return {
        "checkpoint": str(checkpoint),
        "parameters": sum(torch.Size(tensor.shape).numel() for tensor in adapter.tensors()),
        "rank": adapter.rank,
        "alpha": alpha,
        "targets": part_names(adapter.targets),
        "trained": part_names(adapter.trained),
    }


def _model_of(peft_dir: Path, base: Path | None) -> ModelConfig:
    """Read the architecture of the base."""
    if base is None:
        named = locate.read_json(peft_dir / CONFIG).get("base_model_name_or_path")
        base = Path(named or "unnamed")
        if not base.is_dir():
            raise CheckpointError(
                f"{peft_dir / CONFIG} names the base {named!r}, which is not a folder here: give its Hugging Face "
                "folder or its checkpoint with --base"
            )
    if (base / "config.json").is_file():
        return read_model_config(base)
    source = locate.find(base)
    return model_config_from_dict(locate.read_state(source)["model"], str(source / locate.STATE))


def _read(folder: PeftFolder, dtype: torch.dtype) -> ShardedStateDict:
    """Read all tensors; those of experts are stacked by layer."""
    tensors: dict[str, list[torch.Tensor]] = {}
    stacked = set()
    for tensor in folder.adapter.tensors():
        tensors.setdefault(tensor.key, []).append(folder.read(tensor.peft_name).to(dtype))
        if tensor.expert is not None:
            stacked.add(tensor.key)
    complete = {key: torch.stack(parts) if key in stacked else parts[0] for key, parts in tensors.items()}
    return {key: ShardedTensor.from_rank_offsets(key, data, replica_id=(0, 0, 0)) for key, data in complete.items()}
