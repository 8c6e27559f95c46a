"""Keeps a report up to date while a run is training."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from acc_megatron.common.atomic_files import size_and_time

POLL_SECONDS = 2.0
REFRESH_SECONDS = 10  # after which a browser loads a watched page again


def watch(files: Sequence[Path], update: Callable[[], None], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Call `update` now and whenever one of `files` has changed; returns when the user presses Ctrl-C."""
    seen: list[tuple[int, int]] | None = None
    try:
        while True:
            now = [size_and_time(file) for file in files]
            if now != seen:
                seen = now
                update()
            sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return
