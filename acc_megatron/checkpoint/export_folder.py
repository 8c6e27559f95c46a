"""`export`: convert a checkpoint to a Hugging Face folder, in one process or on several ranks."""

import json
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypedDict

from acc_megatron.mesh.process_groups import process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist

from acc_megatron.checkpoint import integrity, locate
from acc_megatron.checkpoint.carried_files import CARRIED, TENSORS_BY_FILE
from acc_megatron.checkpoint.huggingface import INDEX
from acc_megatron.checkpoint.huggingface_config import hf_config
from acc_megatron.checkpoint.merge import Merge, MergedTensors
from acc_megatron.checkpoint.rank_zero import on_rank_zero
from acc_megatron.checkpoint.safetensors_file import write_safetensors
from acc_megatron.checkpoint.saved_tensors import SavedTensors
from acc_megatron.common.atomic_files import publish_folder, write_json
from acc_megatron.common.output_folder import check_contains_only, resolve_output
from acc_megatron.config import ModelConfig, ParallelConfig, model_config_from_dict
from acc_megatron.data_tools.tokenizer.huggingface_files import write_tokenizer_files
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import CheckpointError
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.families.rope_scaling import read_rope_scaling, replace_rope_scaling
from acc_megatron.model.transformer_config import DTYPES
from acc_megatron.model.weight_map import WeightMap

MAX_FILE_BYTES = 4 << 30
Experts = Literal["single", "fused"]
Shapes = dict[str, tuple[int, ...]]


class Exported(TypedDict):
    """The result of an export, as `--json` prints it."""

    export_dir: str
    step: int
    parameters: int
    files: int


def export_folder(
    checkpoint: Path,
    out: Path,
    tokenizer: Tokenizer,
    *,
    precision: str | None = None,
    experts: Experts | None = None,
    max_file_bytes: int | None = None,
    adapter: Path | None = None,
) -> Exported:
    """Convert a checkpoint of any layout to a Hugging Face folder with weights, config and tokenizer; collective.

    Each rank writes some of the files, one tensor at a time. Dtype, names of experts, and the file of each tensor are
    those of the import unless given. Tokenizer files that were imported are copied; otherwise they are made from
    `tokenizer`. With `adapter`, the checkpoint of an adapter, the model is the sum of both; dtype and window are those
    of its run. Replaces an earlier export at `out`; raises DataError for a folder that contains anything else, and
    CheckpointError if `checkpoint` is not the adapter's base, or an adapter itself.
    """
    source = locate.find(checkpoint)
    out = resolve_output(out)
    check_contains_only(out, _is_exported)
    temporary = out.with_name(f".{out.name}.tmp")
    with process_groups(ParallelConfig()):
        integrity.verify(source)
        state = locate.read_state(source)
        if "adapter" in state:
            raise CheckpointError(
                f"{source} is the checkpoint of an adapter: export it as a PEFT folder with --adapter, or add it "
                "to its base with --merge"
            )
        if adapter is not None:
            integrity.verify(adapter)
            state = locate.read_state(adapter)
        model = model_config_from_dict(state["model"], str(source / locate.STATE))
        weights = FAMILIES[model.family].weight_map(model)
        trained_in = DTYPES[(state["config"]["train"] if "config" in state else state)["precision"]]
        dtype = DTYPES[precision] if precision else trained_in
        merge = Merge(adapter, weights, trained_in) if adapter is not None else None
        files, shapes = _plan_files(source, weights, dtype, experts, max_file_bytes)

        def prepare() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_other_files(temporary, source / locate.CARRIED_FOLDER, model, dtype, tokenizer)
            if list(files) != ["model.safetensors"]:
                _write_index(temporary / INDEX, files, shapes, dtype)

        on_rank_zero(prepare, f"cannot prepare {temporary}")
        failure = None
        try:
            for name in list(files)[dist.get_rank() :: dist.get_world_size()]:
                own = {tensor: shapes[tensor] for tensor in files[name]}
                saved = MergedTensors(source, weights, merge) if merge else SavedTensors(source)
                write_safetensors(temporary / name, own, dtype, TensorParts(saved, weights).of)
        except OSError as error:
            failure = str(error)
        failures: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(failures, failure)

        other_base = merge.other_base(source) if merge is not None else None

        def publish() -> None:
            if other_base is not None:
                shutil.rmtree(temporary)
                raise CheckpointError(other_base)
            for failure in filter(None, failures):
                shutil.rmtree(temporary)
                raise CheckpointError(f"cannot write {out}: {failure}")
            publish_folder(temporary, out)

        on_rank_zero(publish, f"cannot publish {out}")
    parameters = sum(torch.Size(shape).numel() for shape in weights.shapes().values())
    return {"export_dir": str(out), "step": state["step"], "parameters": parameters, "files": len(files)}


class TensorParts:
    """The tensors of an export in consecutive parts: one expert at a time if a layer's experts are in one tensor."""

    def __init__(self, saved: SavedTensors, weights: WeightMap) -> None:
        self.weights = weights
        self._single: dict[str, tuple[str, int]] = {}  # Hugging Face name: parameter, which of its tensors
        self._fused: dict[str, list[str]] = {}  # name of a fused tensor: parameters in the order of experts
        for parameter in weights.parameter_names():
            for number, name in enumerate(weights.entry(parameter).hf_names):
                self._single[name] = (parameter, number)
                place = weights.fused_place(name)
                if place is not None and number == 0:
                    # gate and up are stored in one parameter in the same order as in the fused tensor
                    self._fused.setdefault(place.name, []).append(parameter)
        self._read = lru_cache(maxsize=2)(saved.read)  # q, k and v, or gate and up, come from one parameter

    def of(self, name: str) -> Iterator[torch.Tensor]:
        """Yield consecutive parts of a tensor by its name in the file."""
        if name in self._single:
            parameter, number = self._single[name]
            yield self.weights.entry(parameter).separate(self._read(parameter))[number]
            return
        for parameter in self._fused[name]:
            yield self._read(parameter)


def _plan_files(
    source: Path, weights: WeightMap, dtype: torch.dtype, experts: Experts | None, max_file_bytes: int | None
) -> tuple[dict[str, list[str]], Shapes]:
    """Return tensor names by file, and the tensors' shapes; files are those of the import unless settings differ."""
    record = source / locate.CARRIED_FOLDER / TENSORS_BY_FILE
    imported = json.loads(record.read_bytes()) if record.is_file() else None
    is_fused = experts == "fused" if experts else bool(imported and imported["fused"])
    shapes = weights.shapes(is_fused=is_fused)
    if imported and not max_file_bytes and is_fused == imported["fused"]:
        known = {file: [name for name in names if name in shapes] for file, names in imported["files"].items()}
        return {file: names for file, names in known.items() if names}, shapes
    groups: list[list[str]] = [[]]
    room = max_bytes = max_file_bytes or MAX_FILE_BYTES
    for name, shape in shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        if groups[-1] and size > room:
            groups.append([])
            room = max_bytes
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {"model.safetensors": sorted(groups[0])}, shapes
    count = len(groups)
    return {f"model-{n:05d}-of-{count:05d}.safetensors": sorted(g) for n, g in enumerate(groups, 1)}, shapes


def _write_index(path: Path, files: dict[str, list[str]], shapes: Shapes, dtype: torch.dtype) -> None:
    """Write the index of several files as transformers does."""
    parameters = sum(torch.Size(shapes[name]).numel() for names in files.values() for name in names)
    index = {
        "metadata": {"total_parameters": parameters, "total_size": parameters * dtype.itemsize},
        "weight_map": {name: file for file, names in files.items() for name in names},
    }
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_exported(name: str) -> bool:
    return name in (*CARRIED, INDEX) or (name.startswith("model") and name.endswith(".safetensors"))


def _write_other_files(
    folder: Path, carried: Path, model: ModelConfig, dtype: torch.dtype, tokenizer: Tokenizer
) -> None:
    """Write all files except the weights: carried files are copied, missing ones are made."""
    for name in CARRIED:
        if (carried / name).is_file():
            shutil.copy2(carried / name, folder / name)
    if not (folder / "tokenizer.json").is_file():
        write_tokenizer_files(tokenizer, folder, max_length_tokens=model.window_tokens)
    dtype_name = str(dtype).removeprefix("torch.")
    file = folder / "config.json"
    if not file.is_file():
        eos_id, pad_id = tokenizer.control["<|im_end|>"], tokenizer.control["<|endoftext|>"]
        write_json(file, hf_config(model, dtype_name, eos_id, pad_id))
        return
    config = json.loads(file.read_bytes())
    keys = [key for key in ("dtype", "torch_dtype") if config.get(key, dtype_name) != dtype_name]
    changed = config | dict.fromkeys(keys, dtype_name)
    if read_rope_scaling(config, file) != model.rope_scaling:  # the run extended the window
        changed = replace_rope_scaling(changed, model)
    if changed != config:
        write_json(file, changed)
