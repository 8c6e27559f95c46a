"""Verifying every byte of a checkpoint against its manifest, and finding the newest intact one."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from acc_megatron.checkpoint.locate import MANIFEST, STEPS, point_latest, read_json
from acc_megatron.checkpoint.rank_zero import on_rank_zero
from acc_megatron.common.atomic_files import sha256_file, write_json
from acc_megatron.errors import CheckpointError

FORMAT_VERSION = 1


def write_manifest(folder: Path, written: dict[str, dict[str, Any]]) -> None:
    """Write the manifest of a checkpoint on rank 0, after hashing the files that are not in `written` yet.

    `written` has bytes and sha256 by file name, from the ranks that wrote them. Raises CheckpointError if rank 0
    cannot see one of these files.
    """
    for name, entry in written.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CheckpointError(
                f"{file} was written by another rank but is missing or incomplete on this machine: put train.run_dir "
                "on a file system that all machines share"
            )
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_file() and name not in written:
            written[name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    files = dict(sorted(written.items()))
    write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, "files": files, "sha256": _digest(files)})


def verify(folder: Path) -> None:
    """Verify every byte of a checkpoint, each rank some of the files; collective.

    Raises CheckpointError on every rank, with the file, its expected and its actual hash.
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
    """Verify every `num_parts`-th file of a checkpoint; raises CheckpointError with the file and both hashes."""
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files", {})
    if manifest.get("sha256") != _digest(files):
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged: its entries have sha256 {_digest(files)}, "
            f"expected {manifest.get('sha256')}: use another checkpoint"
        )
    for name, entry in list(files.items())[part::num_parts]:
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: use another checkpoint")
        actual = sha256_file(file)
        if actual != entry["sha256"]:
            raise CheckpointError(
                f"{file} is damaged: {file.stat().st_size} bytes with sha256 {actual}, "
                f"expected {entry['bytes']} bytes with {entry['sha256']}: use another checkpoint"
            )


def newest_intact(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint of a run that verifies, and for each newer one why it does not; collective.

    The newer ones are renamed to NAME.damaged, and `latest` names the intact one.
    """
    folders = sorted(checkpoints.glob(STEPS), reverse=True)
    reasons: list[str] = []
    for folder in folders:
        try:
            verify(folder)
        except CheckpointError as error:
            reasons.append(str(error))
            continue

        def set_aside(intact: Path = folder) -> None:
            for damaged in folders[: folders.index(intact)]:
                target = damaged.with_name(f"{damaged.name}.damaged")
                shutil.rmtree(target, ignore_errors=True)
                damaged.replace(target)
            point_latest(intact)

        on_rank_zero(set_aside, f"cannot go back to {folder}")
        return folder, reasons
    return None, reasons


def _digest(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
