"""Which folder an output replaces, and what it may replace."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from acc_megatron.errors import DataError


def resolve_output(path: Path) -> Path:
    """The folder that an output at `path` replaces: symbolic links are followed, so that no link is replaced.

    Raises DataError for the current working folder and its parents: the shell would be left in a deleted folder.
    """
    target = path.resolve()
    if Path.cwd().is_relative_to(target):
        raise DataError(f"{path} is or contains the current folder, and would be replaced: give another --out")
    return target


def check_replaceable(path: Path, kind: str, is_own: Callable[[dict[str, Any]], bool], names: Collection[str]) -> None:
    """Raise DataError unless `path` is free, empty, or an earlier output: `is_own` accepts its manifest.json.

    It must contain nothing but `names`.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or not is_own(manifest):
        raise DataError(f"{path} exists and is not {kind}; give another --out")
    check_contains_only(path, names.__contains__)


def check_contains_only(path: Path, is_own: Callable[[str], bool]) -> None:
    """Raise DataError when the folder `path`, which is to be replaced, contains other names than its own."""
    others = sorted(item.name for item in path.iterdir() if not is_own(item.name)) if path.is_dir() else []
    if others:
        few = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise DataError(f"{path} also contains {few}, which would be removed: move that, or give another --out")
