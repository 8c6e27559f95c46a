"""How a run ends itself: all ranks stop together after a complete step, and rank 0 prints the reason."""

from acc_megatron.errors import AccError
from acc_megatron.mesh.torchrun_environment import is_rank_zero


class Abandoned(Exception):
    """Raised on all ranks in the same step: the run saves a checkpoint and then ends with `error`."""

    def __init__(self, error: AccError) -> None:
        super().__init__(str(error))
        self.error = error


def leave(error: AccError) -> BaseException:
    """The exception that a rank ends with: the error on rank 0, otherwise SystemExit with its exit code."""
    return error if is_rank_zero() else SystemExit(error.exit_code)
