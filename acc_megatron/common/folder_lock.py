"""A lock on a folder against other processes, by flock."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_SECONDS = 3.0  # the workers of a killed run need some time to notice


@contextmanager
def folder_lock(folder: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Lock a folder while the block runs; yields whether the lock was acquired, within a few seconds or immediately.

    Many processes may hold it `shared`, or one exclusively. File systems without locks let everyone in.
    """
    descriptor, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + (_WAIT_SECONDS if wait else 0)
    try:
        while not (is_locked := _try_lock(descriptor, shared)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield is_locked
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True
