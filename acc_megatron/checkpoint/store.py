"""Checkpoints on disk: written beside their place, hashed, renamed into it; refused when one byte differs.

checkpoints/step_00000020/    megatron's torch_dist files, state.json, hf/ (carried files), manifest.json
checkpoints/latest            the name of the newest whole one
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.optimizer import MegatronOptimizer

from acc_megatron.data_tools.atomic import atomic_file, publish_folder, sha256_file, write_json
from acc_megatron.errors import CheckpointError

MANIFEST, STATE, LATEST, CARRIED_FOLDER = "manifest.json", "state.json", "latest", "hf"
FORMAT_VERSION = 1


def save(
    folder: Path,
    chunks: list[torch.nn.Module],
    optimizer: MegatronOptimizer | None,
    state: dict[str, Any],
    carried: Path | None = None,
) -> None:
    """Write one checkpoint; collective over the world. It appears at `folder` whole or not at all.

    `state` is kept as state.json; files in `carried` travel along in hf/. Raises CheckpointError on every rank
    when the disk fails on rank 0.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")

    def prepare() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def publish() -> None:
        write_json(temporary / STATE, state)
        if carried is not None and carried.is_dir():
            shutil.copytree(carried, temporary / CARRIED_FOLDER)
        files = {
            str(file.relative_to(temporary)): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        write_json(temporary / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
        publish_folder(temporary, folder)
        with atomic_file(folder.parent / LATEST) as file:
            file.write(folder.name.encode() + b"\n")

    on_rank_zero(prepare, f"cannot prepare {temporary}")
    dist_checkpointing.save(_sharded_state(chunks, optimizer), str(temporary), validate_access_integrity=True)
    dist.barrier()
    on_rank_zero(publish, f"cannot publish {folder}")


def load(folder: Path, chunks: list[torch.nn.Module], optimizer: MegatronOptimizer | None) -> None:
    """Load weights, and optimizer state when an optimizer is given, saved under any layout; collective.

    Raises CheckpointError when a file is missing or differs from its recorded hash.
    """
    on_rank_zero(lambda: check(folder), f"cannot load {folder}")
    loaded = dist_checkpointing.load(_sharded_state(chunks, optimizer, loading=True), str(folder))
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{number}"])
    if optimizer is not None:
        optimizer.load_state_dict(loaded["optimizer"])


def _sharded_state(
    chunks: list[torch.nn.Module], optimizer: MegatronOptimizer | None, loading: bool = False
) -> dict[str, Any]:
    metadata = {
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        "chained_optim_avoid_prefix": True,
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": False,
    }
    state: dict[str, Any] = {
        f"model{number}": chunk.sharded_state_dict(metadata=metadata)  # type: ignore[operator]
        for number, chunk in enumerate(chunks)
    }
    if optimizer is not None:
        merged = {key: value for part in state.values() for key, value in part.items()}
        state["optimizer"] = optimizer.sharded_state_dict(merged, is_loading=loading, metadata=metadata)
    return state


def check(folder: Path) -> None:
    """Prove every byte of a checkpoint; raises CheckpointError naming the file, expected and actual hash."""
    for name, entry in read_json(folder / MANIFEST)["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: take another checkpoint")
        actual = sha256_file(file)
        if actual != entry["sha256"]:
            raise CheckpointError(
                f"{file} is damaged: {file.stat().st_size} bytes with sha256 {actual}, "
                f"expected {entry['bytes']} bytes with {entry['sha256']}: take another checkpoint"
            )


def read_state(folder: Path) -> dict[str, Any]:
    """What was saved beside the weights: step, configuration, dataset fingerprint."""
    return read_json(folder / STATE)


def latest(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None; CheckpointError when the pointer names one that is gone."""
    pointer = checkpoints / LATEST
    if not pointer.is_file():
        return None
    folder = checkpoints / pointer.read_text().strip()
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{pointer} names {folder.name}, which is not there")
    return folder


def find(path: Path) -> Path:
    """A checkpoint by its own folder, by its run folder or by the folder of checkpoints; CheckpointError else."""
    if (path / MANIFEST).is_file() and (path / STATE).is_file():
        return path
    for candidate in (path, path / "checkpoints"):
        if found := latest(candidate):
            return found
    raise CheckpointError(f"no checkpoint at {path}: it has neither {MANIFEST} nor {LATEST}")


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; rank 0 alone calls it, after a save."""
    for folder in sorted(checkpoints.glob("step_*"))[:-keep]:
        shutil.rmtree(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint; CheckpointError when it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def on_rank_zero(action: Callable[[], None], what: str) -> None:
    """Run on rank 0 while the others wait; when it fails there, every rank raises."""
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            action()
        except (OSError, CheckpointError) as error:
            failure = error
    flag = torch.tensor([int(failure is not None)], device=torch.cuda.current_device())
    dist.broadcast(flag, src=0)
    if failure is not None:
        raise failure if isinstance(failure, CheckpointError) else CheckpointError(f"{what}: {failure}")
    if flag.item():
        raise CheckpointError(f"{what}: rank 0 says why")
