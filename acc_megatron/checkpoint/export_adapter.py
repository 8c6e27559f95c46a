"""`export --adapter`: convert the checkpoint of an adapter to a PEFT folder, in one process."""

import shutil
from pathlib import Path
from typing import TypedDict

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.checkpoint import integrity, locate
from acc_megatron.checkpoint.merge import saved_adapter
from acc_megatron.checkpoint.peft_folder import CONFIG, ORIGIN, WEIGHTS, adapter_config
from acc_megatron.checkpoint.safetensors_file import write_safetensors
from acc_megatron.checkpoint.saved_tensors import SavedTensors
from acc_megatron.common.atomic_files import publish_folder, write_json
from acc_megatron.common.output_folder import check_contains_only, resolve_output
from acc_megatron.config import ParallelConfig, model_config_from_dict
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.torchrun_environment import world_size
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.transformer_config import DTYPES


class ExportedAdapter(TypedDict):
    """The result of the export of an adapter, as `--json` prints it."""

    export_dir: str
    step: int
    parameters: int
    vllm: str  # whether vLLM can serve it as an adapter


def export_adapter(checkpoint: Path, out: Path, precision: str | None = None) -> ExportedAdapter:
    """Convert the checkpoint of an adapter of any layout to a PEFT folder.

    Factors of experts are one matrix an expert, which vLLM reads and peft converts for transformers 5. Replaces an
    earlier export at `out`. Raises CheckpointError for a checkpoint without an adapter, DataError if `out` contains
    anything else, ConfigError for several processes.
    """
    if world_size() > 1:
        raise ConfigError("export --adapter runs in one process: start it without torchrun")
    source, out = locate.find(checkpoint), resolve_output(out)
    check_contains_only(out, lambda name: name in (CONFIG, WEIGHTS, ORIGIN))
    temporary = out.with_name(f".{out.name}.tmp")
    with process_groups(ParallelConfig()):
        integrity.verify(source)
    model = model_config_from_dict(locate.read_state(source)["model"], str(source / locate.STATE))
    state, adapter = saved_adapter(source, FAMILIES[model.family].weight_map(model).shapes())
    config = state.get("config")
    dtype = DTYPES[precision or (config["train"] if config else state)["precision"]]
    tensors = {tensor.peft_name: tensor for tensor in sorted(adapter.tensors(), key=lambda one: one.peft_name)}
    saved = SavedTensors(source)

    def parts(name: str) -> list[torch.Tensor]:
        tensor = tensors[name]
        return [saved.read_key(tensor.key, () if tensor.expert is None else (tensor.expert,))]

    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_safetensors(temporary / WEIGHTS, shapes, dtype, lambda name: iter(parts(name)))
    write_json(temporary / CONFIG, adapter_config(state, config["adapter"]["dropout"] if config else 0.0))
    write_json(temporary / ORIGIN, {"base": state.get("base")})
    publish_folder(temporary, out)
    return {
        "export_dir": str(out),
        "step": state["step"],
        "parameters": sum(torch.Size(shape).numel() for shape in shapes.values()),
        "vllm": _vllm(adapter.targets, adapter.trained),
    }


def _vllm(targets: frozenset[str], trained: frozenset[str]) -> str:
    """Say whether vLLM serves the folder: it refuses modules_to_save, and Qwen3's models list no embedding modules."""
    merged = "serve the result of export --merge"
    if trained:
        return f"no: it has {', '.join(sorted(trained))} in full; {merged}"
    if outside := sorted(targets & {"embeddings", "head"}):
        return f"no: it has factors of {', '.join(outside)}; {merged}"
    if "router" in targets:
        return f"unknown: it has factors of routers, which not every version applies; {merged}"
    return "yes"
