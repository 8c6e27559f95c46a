"""Checkpoints as files of a run: finding, naming, reading and removing them, without torch.

checkpoints/step_00000020/    Megatron's torch_dist files, state.json, hf/ (carried files), manifest.json
checkpoints/latest            the name of the newest complete checkpoint
checkpoints/best              the name of the one with the lowest held-out loss, in a run with validation
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from acc_megatron.common.atomic_files import atomic_file
from acc_megatron.errors import CheckpointError

MANIFEST, STATE, LATEST, BEST, CARRIED_FOLDER = "manifest.json", "state.json", "latest", "best", "hf"
STEPS = "step_" + "[0-9]" * 8


def find(path: Path) -> Path:
    """Return a checkpoint by its folder, its run folder, the folder of checkpoints, or the file `latest` or `best`.

    Raises CheckpointError if there is none.
    """
    if path.name in (LATEST, BEST) and path.is_file():
        path = _named_by(path)
    if (path / MANIFEST).is_file() and (path / STATE).is_file():
        return path
    for candidate in (path, path / "checkpoints"):
        if found := latest(candidate):
            return found
    raise CheckpointError(
        f"no checkpoint at {path}: it has neither {MANIFEST} nor {LATEST}; make one with acc-megatron import"
    )


def latest(checkpoints: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None; CheckpointError if `latest` names a missing one.

    A run that was killed after its first checkpoint but before it wrote `latest` has no such file; then the result is
    the newest checkpoint in the folder.
    """
    pointer = checkpoints / LATEST
    if not pointer.is_file():
        complete = [folder for folder in sorted(checkpoints.glob(STEPS)) if (folder / MANIFEST).is_file()]
        return complete[-1] if complete else None
    folder = _named_by(pointer)
    if folder.parent != checkpoints or not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{pointer} names {folder.name!r}, which does not exist")
    return folder


def point_latest(folder: Path) -> None:
    """Make `latest` name a checkpoint; only rank 0 calls this."""
    point(folder, LATEST)


def _named_by(pointer: Path) -> Path:
    """Return the checkpoint that the file `latest` or `best` names, which may not exist."""
    return pointer.parent / pointer.read_text(encoding="utf-8", errors="replace").strip()


def point(folder: Path, name: str) -> None:
    """Make the file `name`, LATEST or BEST, name a checkpoint; only rank 0 calls this."""
    with atomic_file(folder.parent / name) as file:
        file.write(folder.name.encode() + b"\n")


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, never one that `latest` or `best` names; also leftovers of saves.

    Only rank 0 calls this, after a save.
    """
    kept = [latest(checkpoints)]
    if (checkpoints / BEST).is_file():
        kept.append(_named_by(checkpoints / BEST))
    for folder in sorted(checkpoints.glob(STEPS))[:-keep]:
        if folder not in kept:
            shutil.rmtree(folder)
    for leftover in checkpoints.glob(f".{STEPS}.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what was saved with the weights: step, settings, dataset fingerprint."""
    return read_json(folder / STATE)


def base_of(adapter: Path) -> Path:
    """Return the base that the checkpoint of an adapter names; raises CheckpointError if it has none or is none."""
    state = read_state(adapter)
    if "adapter" not in state:
        raise CheckpointError(f"{adapter} is not the checkpoint of an adapter: leave out --merge")
    named = (state.get("base") or {}).get("checkpoint")
    if not named or not Path(named).exists():
        raise CheckpointError(f"{adapter} has the base {named!r}, which is not here: give its checkpoint with --base")
    return Path(named)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file of a checkpoint; raises CheckpointError if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
