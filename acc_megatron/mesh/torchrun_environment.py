"""This process's rank and world size from torchrun's environment variables, without importing torch."""

import os
import sys

from acc_megatron.common.live_line import erase_live_line


def world_size() -> int:
    """Return the number of processes that torchrun started, or 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_under_torchrun() -> bool:
    """Return whether torchrun, or a launcher that sets its variables, started this process."""
    return "WORLD_SIZE" in os.environ


def is_rank_zero() -> bool:
    """Return whether this process is rank 0, which prints and writes for the run."""
    return int(os.environ.get("RANK", 0)) == 0


def say(line: str) -> None:
    """Print one line of progress on stderr, on rank 0 only."""
    if is_rank_zero():
        erase_live_line()
        print(line, file=sys.stderr, flush=True)
