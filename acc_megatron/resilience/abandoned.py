"""How a run ends by itself: every rank leaves together, rank 0 says why, the weights are those of a finished step."""

from acc_megatron.errors import AccError
from acc_megatron.ranks import is_rank_zero


class Abandoned(Exception):
    """Raised on all ranks at once: the run may save, collectively, and then ends with `error`."""

    def __init__(self, error: AccError) -> None:
        super().__init__(str(error))
        self.error = error


def leave(error: AccError) -> BaseException:
    """What a rank raises at the end: rank 0 the error, the others its exit code alone."""
    return error if is_rank_zero() else SystemExit(error.exit_code)
