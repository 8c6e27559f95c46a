"""Checkpoints on disk: written beside their place, hashed, read back, renamed into it; refused if one byte differs."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.optimizer import MegatronOptimizer

from acc_megatron.checkpoint.locate import CARRIED_FOLDER, LATEST, MANIFEST, STATE, STEPS, latest
from acc_megatron.checkpoint.writer import PlanAlone, RankWriter
from acc_megatron.data_tools.atomic import atomic_file, publish_folder, sha256_file, write_json
from acc_megatron.errors import CheckpointError

FORMAT_VERSION = 1


class Save:
    """One checkpoint on its way to disk; it appears at `folder` whole, or not at all.

    Every method is collective over the world. `state` is kept as state.json; files in `carried` travel along in hf/.
    With `stage` the tensors are copied first, and training may go on until `finish`.
    """

    def __init__(
        self,
        folder: Path,
        chunks: list[torch.nn.Module],
        optimizer: MegatronOptimizer | None,
        state: dict[str, Any],
        carried: Path | None = None,
        *,
        stage: bool = False,
    ) -> None:
        self.folder, self.state, self.carried = folder, state, carried
        self._temporary = folder.with_name(f".{folder.name}.tmp")
        on_rank_zero(self._prepare, f"cannot prepare {self._temporary}")
        self._writer = RankWriter(self._temporary, stage=stage)
        dist_checkpointing.save(
            _sharded_state(chunks, optimizer),
            str(self._temporary),
            PlanAlone(self._writer),
            validate_access_integrity=True,
            async_sharded_save=True,
            async_strategy="mcore",
        )
        self._writer.start()

    def is_written(self) -> bool:
        """Whether every rank's part is on disk, or has failed."""
        over = torch.tensor([int(self._writer.is_over())], device=torch.cuda.current_device())
        dist.all_reduce(over, op=dist.ReduceOp.MIN)
        return bool(over.item())

    def finish(self) -> None:
        """Wait for every rank, verify, publish, point `latest` at it; CheckpointError on every rank when one failed.

        After a failure nothing of this checkpoint is left, and `latest` names the one before.
        """
        self._writer.wait()
        mine = (self._writer.failure, self._writer.results, self._writer.files)
        gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(mine, gathered)
        on_rank_zero(lambda: self._publish(gathered or []), f"cannot save {self.folder}")

    def _prepare(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)

    def _publish(self, parts: list[Any]) -> None:
        try:
            failures = [f"rank {rank}: {failure}" for rank, (failure, _, _) in enumerate(parts) if failure]
            if failures:
                raise CheckpointError(f"cannot save {self.folder}: {failures[0]} ({len(failures)} ranks failed)")
            assert self._writer.metadata is not None
            self._writer.finish(self._writer.metadata, [results for _, results, _ in parts])
            save_config(CheckpointingConfig("torch_dist", 1), str(self._temporary))
            self._write_manifest({name: entry for _, _, files in parts for name, entry in files.items()})
            publish_folder(self._temporary, self.folder)
        except (OSError, CheckpointError):
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise
        point_latest(self.folder)

    def _write_manifest(self, written: dict[str, dict[str, Any]]) -> None:
        """Hash what rank 0 adds, and see that it sees what every rank wrote."""
        write_json(self._temporary / STATE, self.state)
        if self.carried is not None and self.carried.is_dir():
            shutil.copytree(self.carried, self._temporary / CARRIED_FOLDER)
        for name, entry in written.items():
            file = self._temporary / name
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                raise CheckpointError(f"{file} was written by another rank and is not here whole: share the disk")
        for file in sorted(self._temporary.rglob("*")):
            name = str(file.relative_to(self._temporary))
            if file.is_file() and name not in written:
                written[name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        files = dict(sorted(written.items()))
        manifest = {"format_version": FORMAT_VERSION, "files": files, "sha256": _digest(files)}
        write_json(self._temporary / MANIFEST, manifest)


def save(
    folder: Path,
    chunks: list[torch.nn.Module],
    optimizer: MegatronOptimizer | None,
    state: dict[str, Any],
    carried: Path | None = None,
) -> None:
    """Save and wait; collective. Raises CheckpointError on every rank when the disk fails on one."""
    Save(folder, chunks, optimizer, state, carried).finish()


def load(folder: Path, chunks: list[torch.nn.Module], optimizer: MegatronOptimizer | None) -> None:
    """Load weights, and optimizer state when an optimizer is given, saved under any layout; collective.

    Call `verify` first: nothing is checked here.
    """
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


def verify(folder: Path) -> None:
    """Prove every byte of a checkpoint, a share of the files a rank; collective.

    Raises CheckpointError on every rank, naming the file, expected and actual hash.
    """
    failure: str | None = None
    try:
        check(folder, dist.get_rank(), dist.get_world_size())
    except (CheckpointError, OSError) as error:
        failure = str(error)
    failures: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for failure in failures:
        if failure is not None:
            raise CheckpointError(failure)


def check(folder: Path, part: int = 0, num_parts: int = 1) -> None:
    """Prove every `num_parts`-th file of a checkpoint; CheckpointError names the file, expected and actual hash."""
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files", {})
    if manifest.get("sha256") != _digest(files):
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged: its entries have sha256 {_digest(files)}, "
            f"expected {manifest.get('sha256')}: take another checkpoint"
        )
    for name, entry in list(files.items())[part::num_parts]:
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: take another checkpoint")
        actual = sha256_file(file)
        if actual != entry["sha256"]:
            raise CheckpointError(
                f"{file} is damaged: {file.stat().st_size} bytes with sha256 {actual}, "
                f"expected {entry['bytes']} bytes with {entry['sha256']}: take another checkpoint"
            )


def _digest(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_state(folder: Path) -> dict[str, Any]:
    """What was saved beside the weights: step, configuration, dataset fingerprint."""
    return read_json(folder / STATE)


def point_latest(folder: Path) -> None:
    """Name the newest whole checkpoint; rank 0 alone calls it."""
    with atomic_file(folder.parent / LATEST) as file:
        file.write(folder.name.encode() + b"\n")


def newest_good(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that verifies, and why newer ones do not; collective.

    Those are set aside as NAME.damaged, and `latest` names the good one.
    """
    folders = sorted(checkpoints.glob(STEPS), reverse=True)
    reasons: list[str] = []
    for folder in folders:
        try:
            verify(folder)
        except CheckpointError as error:
            reasons.append(str(error))
            continue

        def set_aside(good: Path = folder) -> None:
            for bad in folders[: folders.index(good)]:
                target = bad.with_name(f"{bad.name}.damaged")
                shutil.rmtree(target, ignore_errors=True)
                bad.replace(target)
            point_latest(good)

        on_rank_zero(set_aside, f"cannot go back to {folder}")
        return folder, reasons
    return None, reasons


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and what killed saves left; never the one that `latest` names.

    Rank 0 alone calls it, after a save.
    """
    good = latest(checkpoints)
    for folder in sorted(checkpoints.glob(STEPS))[:-keep]:
        if folder != good:
            shutil.rmtree(folder)
    for leftover in checkpoints.glob(f".{STEPS}.*"):
        shutil.rmtree(leftover, ignore_errors=True)


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
