"""What torchrun says of this process, without importing torch."""

import os
import sys


def world_size() -> int:
    """Processes that torchrun started, or 1."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_rank_zero() -> bool:
    """Whether this process speaks for the run."""
    return int(os.environ.get("RANK", 0)) == 0


def say(line: str) -> None:
    """One line of progress on stderr, from rank 0."""
    if is_rank_zero():
        print(line, file=sys.stderr, flush=True)
