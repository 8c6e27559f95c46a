"""`import` and `export`: a Hugging Face folder to a checkpoint of ours, and back; alone or shared out over ranks."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from acc_megatron.distributed import own_ranks, process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist

from acc_megatron import __version__
from acc_megatron.checkpoint import huggingface, locate, store
from acc_megatron.checkpoint.huggingface_config import hf_config
from acc_megatron.checkpoint.safetensors_file import write_safetensors
from acc_megatron.checkpoint.tensors import SavedTensors
from acc_megatron.checkpoint.weight_map import entry_for, fused_shapes, hf_shapes, parameter_names
from acc_megatron.config import ModelConfig, ParallelConfig, model_config_from_dict
from acc_megatron.data_tools.atomic import landing, need_no_others, publish_folder, write_json
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.data_tools.tokenizer_files import write_tokenizer_files
from acc_megatron.errors import CheckpointError
from acc_megatron.layout import build_layout, check_model_fit
from acc_megatron.model.qwen3_moe import build_chunks
from acc_megatron.model.transformer_config import DTYPES, transformer_config
from acc_megatron.ranks import world_size

# files beside the weights that a checkpoint carries along, so that an export is as complete as what was imported
CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
FILES = "safetensors_files.json"  # which tensors were in which file, so that an export is cut like what was imported
MAX_FILE_BYTES = 4 << 30
Experts = Literal["single", "fused"]


def import_folder(hf_dir: Path, out: Path, precision: str, parallel: ParallelConfig | None = None) -> dict[str, Any]:
    """Turn a Hugging Face Qwen3-MoE folder into a checkpoint that any layout can start from; collective.

    Each rank of `parallel` reads and holds its own part of the weights. Raises CheckpointError or ConfigError before
    any process group starts when the folder cannot be imported.
    """
    parallel = parallel or ParallelConfig()
    folder = huggingface.HuggingFaceFolder(hf_dir)
    check_model_fit(folder.model, parallel.virtual_pipeline, build_layout(parallel, world_size()))
    if any(out.glob("step_*")):
        raise CheckpointError(f"{out} holds checkpoints already: give another --out")
    with process_groups(parallel) as layout, tempfile.TemporaryDirectory() as temporary:
        transformer = transformer_config(folder.model, layout, precision=precision, parallel=parallel)
        transformer.perform_initialization = False
        chunks = [chunk.to(DTYPES[precision]) for chunk in build_chunks(folder.model, transformer)]
        for chunk in chunks:
            huggingface.load_weights(folder, chunk, layout, own_ranks())
        for name in CARRIED if dist.get_rank() == 0 else ():
            if (hf_dir / name).is_file():
                shutil.copy2(hf_dir / name, temporary)
        write_json(Path(temporary) / FILES, {"fused": folder.has_fused_experts, "files": folder.files})
        state = {"step": 0, "model": vars(folder.model), "code_version": __version__, "precision": precision}
        checkpoint = out / "step_00000000"
        store.save(checkpoint, list(chunks), None, state, Path(temporary))
        held = sum(p.numel() for chunk in chunks for p in chunk.parameters())
    shapes = hf_shapes(folder.model).values()
    return {
        "checkpoint": str(checkpoint),
        "parameters": sum(torch.Size(shape).numel() for shape in shapes),
        "layout": str(layout),
        "parameters_of_rank_0": held,
    }


def export_folder(
    checkpoint: Path,
    out: Path,
    tokenizer: Tokenizer,
    *,
    precision: str | None = None,
    experts: Experts | None = None,
    max_file_bytes: int | None = None,
) -> dict[str, Any]:
    """Turn a checkpoint, saved under any layout, into a Hugging Face folder with weights, config and tokenizer.

    Files are shared out over the ranks, and each is written a tensor at a time. What is not asked for is as it was
    imported: dtype, naming of experts, and which tensor is in which file. Tokenizer files that were imported with
    the model travel along; else they are made from `tokenizer`. An earlier export at `out` is replaced; DataError for
    a folder that holds anything else. Collective.
    """
    source = locate.find(checkpoint)
    out = landing(out)
    need_no_others(out, _is_exported)
    temporary = out.with_name(f".{out.name}.tmp")
    with process_groups(ParallelConfig()):
        store.verify(source)
        state = store.read_state(source)
        model = model_config_from_dict(state["model"], str(source / locate.STATE))
        dtype = DTYPES[precision or (state["config"]["train"] if "config" in state else state)["precision"]]
        files, shapes = _files(source, model, dtype, experts, max_file_bytes or MAX_FILE_BYTES, bool(max_file_bytes))

        def prepare() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_beside(temporary, source / locate.CARRIED_FOLDER, model, dtype, tokenizer)
            if list(files) != ["model.safetensors"]:
                _write_index(temporary / huggingface.INDEX, files, shapes, dtype)

        store.on_rank_zero(prepare, f"cannot prepare {temporary}")
        failure = None
        try:
            for name in list(files)[dist.get_rank() :: dist.get_world_size()]:
                own = {tensor: shapes[tensor] for tensor in files[name]}
                write_safetensors(temporary / name, own, dtype, Pieces(SavedTensors(source), model).of)
        except OSError as error:
            failure = str(error)
        failures: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(failures, failure)

        def publish() -> None:
            for failure in filter(None, failures):
                shutil.rmtree(temporary)
                raise CheckpointError(f"cannot write {out}: {failure}")
            publish_folder(temporary, out)

        store.on_rank_zero(publish, f"cannot publish {out}")
    parameters = sum(torch.Size(shape).numel() for shape in hf_shapes(model).values())
    return {"export_dir": str(out), "step": state["step"], "parameters": parameters, "files": len(files)}


class Pieces:
    """The tensors of an export in parts as they lie in a file: an expert at a time where experts are fused."""

    def __init__(self, saved: SavedTensors, model: ModelConfig) -> None:
        self.model = model
        self._made_of: dict[str, tuple[str, int]] = {}  # Hugging Face name: parameter, which of its parts
        for parameter in parameter_names(model):
            for number, name in enumerate(entry_for(parameter, 0, 0, model).hf_names):
                self._made_of[name] = (parameter, number)
        self._read = lru_cache(maxsize=2)(saved.read)  # q, k and v, or gate and up, come out of one parameter

    def of(self, name: str) -> Iterator[torch.Tensor]:
        """Consecutive parts of a tensor by its name in the file."""
        if name in self._made_of:
            parameter, number = self._made_of[name]
            yield entry_for(parameter, 0, 0, self.model).part(self._read(parameter))[number]
            return
        prefix, _, matrix = name.rpartition(".")
        first = "gate_proj" if matrix == "gate_up_proj" else matrix
        for expert in range(self.model.num_experts):
            parameter, _ = self._made_of[f"{prefix}.{expert}.{first}.weight"]
            yield self._read(parameter)  # gate and up lie in one parameter as they do in the fused tensor


def _files(
    source: Path, model: ModelConfig, dtype: torch.dtype, experts: Experts | None, max_bytes: int, is_limited: bool
) -> tuple[dict[str, list[str]], dict[str, tuple[int, ...]]]:
    """Tensors by file, cut as imported unless something else was asked for, and their shapes."""
    imported = source / locate.CARRIED_FOLDER / FILES
    as_it_was = json.loads(imported.read_bytes()) if imported.is_file() else None
    is_fused = experts == "fused" if experts else bool(as_it_was and as_it_was["fused"])
    shapes = fused_shapes(model) if is_fused else hf_shapes(model)
    if as_it_was and not is_limited and is_fused == as_it_was["fused"]:
        known = {file: [name for name in names if name in shapes] for file, names in as_it_was["files"].items()}
        return {file: names for file, names in known.items() if names}, shapes
    groups: list[list[str]] = [[]]
    room = max_bytes
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


def _write_index(
    path: Path, files: dict[str, list[str]], shapes: dict[str, tuple[int, ...]], dtype: torch.dtype
) -> None:
    """The index of several files, as transformers writes it."""
    parameters = sum(torch.Size(shapes[name]).numel() for names in files.values() for name in names)
    index = {
        "metadata": {"total_parameters": parameters, "total_size": parameters * dtype.itemsize},
        "weight_map": {name: file for file, names in files.items() for name in names},
    }
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_exported(name: str) -> bool:
    return name in (*CARRIED, huggingface.INDEX) or (name.startswith("model") and name.endswith(".safetensors"))


def _write_beside(folder: Path, carried: Path, model: ModelConfig, dtype: torch.dtype, tokenizer: Tokenizer) -> None:
    """Everything but the weights: carried files as they are, and what was not carried made anew."""
    for name in CARRIED:
        if (carried / name).is_file():
            shutil.copy2(carried / name, folder / name)
    if not (folder / "tokenizer.json").is_file():
        write_tokenizer_files(tokenizer, folder, max_length_tokens=model.max_position_embeddings)
    dtype_name = str(dtype).removeprefix("torch.")
    file = folder / "config.json"
    if not file.is_file():
        eos_id, pad_id = tokenizer.control["<|im_end|>"], tokenizer.control["<|endoftext|>"]
        write_json(file, hf_config(model, dtype_name, eos_id, pad_id))
        return
    config = json.loads(file.read_bytes())
    keys = [key for key in ("dtype", "torch_dtype") if config.get(key, dtype_name) != dtype_name]
    if keys:
        write_json(file, config | dict.fromkeys(keys, dtype_name))
