"""Publishing files and folders: temporary name in the same folder, fsync, rename; and their hashes."""

import ctypes
import glob
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.output_folder import resolve_output

BLOCK_BYTES = 1 << 20


def size_and_time(path: Path) -> tuple[int, int]:
    """Size in bytes and time of last write in nanoseconds: shows whether a file changed without reading it."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path`, complete and on disk, when the block ends without an error.

    Missing parent folders are created.
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
    except OSError as error:
        raise _named(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as indented JSON."""
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path`, complete and on disk, when the block ends without an error.

    An older folder at `path` is replaced; at every moment one of the two is complete on disk. Unfinished folders that
    killed processes of this machine left are removed. Raises DataError when `path` is the current folder.
    """
    path = resolve_output(path)
    _recover(path)
    temporary = _temporary(path)
    for old in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}.*.tmp"):
        _remove_if_abandoned(old)
    temporary.mkdir(parents=True)
    try:
        with folder_lock(temporary):
            yield temporary
            publish_folder(temporary, path)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _named(error: OSError, path: Path) -> OSError:
    """The error with a path: a write to an open file, such as to a full disk, fails without one."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error


_HOST = socket.gethostname()


def _temporary(path: Path) -> Path:
    """A name that no other process uses; process ids are not unique across the containers of a job."""
    return path.with_name(f".{path.name}.{_HOST}.{secrets.token_hex(8)}.tmp")


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError), folder_lock(folder, wait=False) as is_locked:
        if is_locked:
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
    elif _exchange(temporary, path):
        shutil.rmtree(temporary)
    else:
        path.replace(_aside(path))
        temporary.replace(path)
        shutil.rmtree(_aside(path))
    fsync_folder(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "renameat2"):
        return False
    current_folder, exchange = -100, 2
    paths = os.fsencode(first), os.fsencode(second)
    return library.renameat2(current_folder, paths[0], current_folder, paths[1], exchange) == 0


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _recover(path: Path) -> None:
    """Complete or undo the replacement of a folder that a killed process left between its two renames."""
    if not _aside(path).exists():
        return
    if path.exists():
        shutil.rmtree(_aside(path))
    else:
        _aside(path).replace(path)


def fsync_folder(path: Path) -> None:
    """Write the names inside a folder to disk."""
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
