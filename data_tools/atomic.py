"""Publishing files whole: temporary name beside the target, fsync, rename; and hashing them again."""

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` complete and on disk when the block ends, or not at all.

    The folder it stands in is made where it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as indented JSON."""
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path` complete and on disk when the block ends, or not at all.

    An older folder at `path` is replaced; at every moment one of the two is there whole.
    """
    _recover(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Fsync everything in `temporary`, then rename it to `path`, replacing an older folder there."""
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        else:
            fsync_folder(file)
    fsync_folder(temporary)
    _recover(path)
    if not path.exists():
        temporary.replace(path)
    elif _exchanged(temporary, path):
        shutil.rmtree(temporary)
    else:
        path.replace(_aside(path))
        temporary.replace(path)
        shutil.rmtree(_aside(path))
    fsync_folder(path.parent)


def _exchanged(first: Path, second: Path) -> bool:
    """Whether two names changed places in one step; not every system and file system can."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "renameat2"):
        return False
    current_folder, exchange = -100, 2
    paths = os.fsencode(first), os.fsencode(second)
    return library.renameat2(current_folder, paths[0], current_folder, paths[1], exchange) == 0


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _recover(path: Path) -> None:
    """Undo the first of the two renames of a run that was killed between them, or finish after the second."""
    if not _aside(path).exists():
        return
    if path.exists():
        shutil.rmtree(_aside(path))
    else:
        _aside(path).replace(path)


def fsync_folder(path: Path) -> None:
    """Make the names inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
