"""File operations on rank 0, or on all ranks, whose failure is raised on every rank."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from acc_megatron.errors import CheckpointError


def on_rank_zero(action: Callable[[], None], what: str) -> None:
    """Run `action` on rank 0 while the others wait; collective.

    Raises CheckpointError on every rank if it fails there; `what` says what was attempted.
    """
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            action()
        except (OSError, CheckpointError) as error:
            failure = error
    flag = torch.tensor([int(failure is not None)], device=torch.cuda.current_device())
    dist.broadcast(flag, src=0)
    if failure is not None:
        raise failure if isinstance(failure, CheckpointError) else CheckpointError(f"{what}: {failure}")
    if flag.item():
        raise CheckpointError(f"{what}: the error of rank 0 has the reason")


@contextmanager
def raised_on_every_rank() -> Iterator[None]:
    """Raise a CheckpointError of the block on every rank, with the message of the first rank that has one; collective.

    The block itself must not communicate.
    """
    failure: str | None = None
    try:
        yield
    except CheckpointError as error:
        failure = str(error)
    failures: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for found in filter(None, failures):
        raise CheckpointError(found)
