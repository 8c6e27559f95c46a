"""Where checkpoints lie on disk, by their files alone, so that light verbs find them too: no torch here.

checkpoints/step_00000020/    megatron's torch_dist files, state.json, hf/ (carried files), manifest.json
checkpoints/latest            the name of the newest whole one
"""

from pathlib import Path

from acc_megatron.errors import CheckpointError

MANIFEST, STATE, LATEST, CARRIED_FOLDER = "manifest.json", "state.json", "latest", "hf"
STEPS = "step_" + "[0-9]" * 8


def find(path: Path) -> Path:
    """A checkpoint by its own folder, by its run folder or by the folder of checkpoints; CheckpointError else."""
    if (path / MANIFEST).is_file() and (path / STATE).is_file():
        return path
    for candidate in (path, path / "checkpoints"):
        if found := latest(candidate):
            return found
    raise CheckpointError(
        f"no checkpoint at {path}: it has neither {MANIFEST} nor {LATEST}; make one with acc-megatron import"
    )


def latest(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None; CheckpointError when the pointer names one that is gone.

    A run killed between its first checkpoint and the pointer has no pointer: then it is the newest there is.
    """
    pointer = checkpoints / LATEST
    if not pointer.is_file():
        whole = [folder for folder in sorted(checkpoints.glob(STEPS)) if (folder / MANIFEST).is_file()]
        return whole[-1] if whole else None
    folder = checkpoints / pointer.read_text(encoding="utf-8", errors="replace").strip()
    if folder.parent != checkpoints or not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{pointer} names {folder.name!r}, which is not there")
    return folder
