"""`import` and `export`: a Hugging Face folder to a checkpoint of ours, and back; both in one process."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from acc_megatron.distributed import own_ranks, process_groups  # first: it makes megatron run without CUDA

# isort: split
from megatron.core.models.gpt import GPTModel

from acc_megatron import __version__
from acc_megatron.checkpoint import huggingface, store
from acc_megatron.config import ModelConfig, ParallelConfig, model_config_from_dict
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.data_tools.tokenizer_files import write_tokenizer_files
from acc_megatron.layout import Layout
from acc_megatron.model.qwen3_moe import build_model
from acc_megatron.model.transformer_config import DTYPES, transformer_config


def import_folder(hf_dir: Path, out: Path, precision: str) -> dict[str, Any]:
    """Turn a Hugging Face Qwen3-MoE folder into a checkpoint that any layout can start from."""
    folder = huggingface.HuggingFaceFolder(hf_dir)
    with process_groups(ParallelConfig()) as layout, tempfile.TemporaryDirectory() as temporary:
        built = _build(folder.model, layout, precision)
        huggingface.load_weights(folder, built, layout, own_ranks())
        for name in huggingface.CARRIED:
            if (hf_dir / name).is_file():
                shutil.copy2(hf_dir / name, temporary)
        state = {"step": 0, "model": vars(folder.model), "code_version": __version__, "precision": precision}
        checkpoint = out / "step_00000000"
        out.mkdir(parents=True, exist_ok=True)
        store.save(checkpoint, [built], None, state, Path(temporary))
    return {"checkpoint": str(checkpoint), "parameters": sum(p.numel() for p in built.parameters())}


def export_folder(checkpoint: Path, out: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Turn a checkpoint, saved under any layout, into a Hugging Face folder with weights, config and tokenizer.

    Tokenizer files that were imported with the model travel along; else they are made from `tokenizer`.
    """
    source = store.find(checkpoint)
    state = store.read_state(source)
    model = model_config_from_dict(state["model"], str(source / store.STATE))
    precision = state["config"]["train"]["precision"] if "config" in state else state["precision"]
    with process_groups(ParallelConfig()) as layout, tempfile.TemporaryDirectory() as temporary:
        built = _build(model, layout, precision)
        store.load(source, [built], None)
        carried = source / store.CARRIED_FOLDER
        if not (carried / "tokenizer.json").is_file():
            carried = Path(temporary)
            write_tokenizer_files(tokenizer, carried, max_length_tokens=model.max_position_embeddings)
        eos_id, pad_id = tokenizer.control["<|im_end|>"], tokenizer.control["<|endoftext|>"]
        huggingface.write_folder(out, built, model, carried, eos_id=eos_id, pad_id=pad_id)
    return {"export_dir": str(out), "step": state["step"], "parameters": sum(p.numel() for p in built.parameters())}


def _build(model: ModelConfig, layout: Layout, precision: str) -> GPTModel:
    transformer = transformer_config(model, layout, precision=precision)
    transformer.perform_initialization = False
    return build_model(model, transformer).to(DTYPES[precision])
