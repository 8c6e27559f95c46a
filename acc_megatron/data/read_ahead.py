"""Reading the packed rows of the next step in a thread, while the current step runs."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

Rows = TypeVar("Rows")


class ReadAhead(Generic[Rows]):
    """Holds what one step needs, and lets one thread read what the next step needs.

    The order of steps is the caller's: what was read for another step is discarded. The thread ends with the `with`
    block, or with this object. Make it after the process has chosen its GPU, on which the thread pins memory.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="read-ahead",
            # a thread starts on GPU 0, where pinning memory would take device memory for every rank of the node
            initializer=torch.cuda.set_device,
            initargs=(torch.cuda.current_device(),),
        )
        self._next: tuple[int, Future[Rows]] | None = None

    def take(self, step: int, read: Callable[[int], Rows], *, reads_next: bool) -> Rows:
        """Return `read(step)`, which the thread may have read already; then let it read the next step if asked.

        Raises what `read` raised, with the traceback of the thread.
        """
        taken, self._next = self._next, None
        if taken is not None and taken[0] != step:
            taken[1].cancel()
            taken = None
        rows = read(step) if taken is None else taken[1].result()
        if reads_next:
            self._next = (step + 1, self._thread.submit(read, step + 1))
        return rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the row that is being read, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
