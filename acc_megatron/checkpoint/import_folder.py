"""`import`: convert a Hugging Face folder to a checkpoint, in one process or on several ranks."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TypedDict

from acc_megatron.mesh.process_groups import own_ranks, process_groups  # first: makes megatron run without CUDA

# isort: split
import torch
import torch.distributed as dist

from acc_megatron import __version__
from acc_megatron.checkpoint import store
from acc_megatron.checkpoint.carried_files import CARRIED, TENSORS_BY_FILE
from acc_megatron.checkpoint.huggingface import HuggingFaceFolder, load_weights
from acc_megatron.checkpoint.rank_zero import raised_on_every_rank
from acc_megatron.common.atomic_files import write_json
from acc_megatron.config import ParallelConfig
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.layout import build_layout
from acc_megatron.mesh.torchrun_environment import world_size
from acc_megatron.model.build import build_chunks
from acc_megatron.model.divisibility import check_model_divides
from acc_megatron.model.transformer_config import DTYPES, transformer_config


class Imported(TypedDict):
    """The result of an import, as `--json` prints it."""

    checkpoint: str
    parameters: int
    layout: str
    parameters_of_rank_0: int


def import_folder(hf_dir: Path, out: Path, precision: str, parallel: ParallelConfig | None = None) -> Imported:
    """Convert a Hugging Face folder to a checkpoint that any layout can start from; collective.

    Each rank of `parallel` reads and stores its own part of the weights. Raises CheckpointError or ConfigError,
    before any process group starts, if the folder cannot be imported; CheckpointError on every rank if a weight is
    NaN or infinite.
    """
    parallel = parallel or ParallelConfig()
    folder = HuggingFaceFolder(hf_dir)
    check_model_divides(folder.model, parallel.virtual_pipeline, build_layout(parallel, world_size()))
    if any(out.glob("step_*")):
        raise CheckpointError(f"{out} already contains checkpoints: choose another --out")
    with process_groups(parallel) as layout, tempfile.TemporaryDirectory() as temporary:
        transformer = transformer_config(folder.model, layout, precision=precision, parallel=parallel)
        transformer.perform_initialization = False
        chunks = [chunk.to(DTYPES[precision]) for chunk in build_chunks(folder.model, transformer)]
        with raised_on_every_rank():
            for chunk in chunks:
                load_weights(folder, chunk, layout, own_ranks())
        for name in CARRIED if dist.get_rank() == 0 else ():
            if (hf_dir / name).is_file():
                shutil.copy2(hf_dir / name, temporary)
        write_json(Path(temporary) / TENSORS_BY_FILE, {"fused": folder.is_fused, "files": folder.files})
        model = dataclasses.asdict(folder.model)
        state = {"step": 0, "model": model, "code_version": __version__, "precision": precision}
        checkpoint = out / "step_00000000"
        store.save(checkpoint, list(chunks), None, state, Path(temporary))
        num_own = sum(p.numel() for chunk in chunks for p in chunk.parameters())
    shapes = folder.weights.shapes().values()
    return {
        "checkpoint": str(checkpoint),
        "parameters": sum(torch.Size(shape).numel() for shape in shapes),
        "layout": str(layout),
        "parameters_of_rank_0": num_own,
    }
