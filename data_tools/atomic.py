"""Publishing files whole: temporary name beside the target, fsync, rename; and hashing them again."""

import ctypes
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from acc_megatron.errors import DataError

BLOCK_BYTES = 1 << 20
_LOCK_SECONDS = 3.0  # that the workers of a killed run may take to notice


def landing(path: Path) -> Path:
    """Where a folder published at `path` comes to lie: links are followed, so that no link is replaced.

    Raises DataError for the folder that the caller stands in: once replaced, its shell would stand in a removed one.
    """
    target = path.resolve()
    if Path.cwd().is_relative_to(target):
        raise DataError(f"{path} is the folder you stand in, and would be replaced under you: give another --out")
    return target


def need_replaceable(path: Path, kind: str, is_own: Callable[[dict[str, Any]], bool], names: Collection[str]) -> None:
    """Raise DataError unless `path` is free, empty, or by its manifest of its own kind and holds `names` alone."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or not is_own(manifest):
        raise DataError(f"{path} exists and is not {kind}; give another --out")
    need_no_others(path, names.__contains__)


def need_no_others(path: Path, is_own: Callable[[str], bool]) -> None:
    """Raise DataError where the folder at `path`, which a new one is to replace, holds more than what is its own."""
    others = sorted(item.name for item in path.iterdir() if not is_own(item.name)) if path.is_dir() else []
    if others:
        few = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise DataError(f"{path} holds {few}, which would be removed with it: move that, or give another --out")


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of a file, and nanoseconds of its last write: what tells that it was changed, without reading it."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def held(folder: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a folder against other processes while the block runs; whether it could be had, in a few seconds or at once.

    Many may hold it `shared`, one alone. Where the file system has no locks nobody is kept out.
    """
    descriptor, end = os.open(folder, os.O_RDONLY), time.monotonic() + (_LOCK_SECONDS if wait else 0)
    try:
        while not (is_held := _locked(descriptor, shared)) and time.monotonic() < end:
            time.sleep(0.05)
        yield is_held
    finally:
        os.close(descriptor)


def _locked(descriptor: int, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` complete and on disk when the block ends, or not at all.

    The folder it stands in is made where it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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

    An older folder at `path` is replaced; at every moment one of the two is there whole. What a killed process of
    this machine left half-made beside it is removed.
    """
    path = landing(path)
    _recover(path)
    temporary = _temporary(path)
    for old in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}.*.tmp"):
        _remove_if_left(old)
    temporary.mkdir(parents=True)
    try:
        with held(temporary):
            yield temporary
            publish_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


_HOST = socket.gethostname()


def _temporary(path: Path) -> Path:
    """A name that no other process takes: process ids are alike in the containers of one job."""
    return path.with_name(f".{path.name}.{_HOST}.{secrets.token_hex(8)}.tmp")


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError), held(folder, wait=False) as is_free:
        if is_free:
            shutil.rmtree(folder)


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
