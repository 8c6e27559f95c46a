"""A limit for code that must not hang; it also interrupts regular expressions."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def time_limit(seconds: float, *, of_cpu: bool = False) -> Iterator[None]:
    """Fail the test if the block still runs after `seconds`, of CPU time with `of_cpu`; for the main thread only."""
    timer, number = (signal.ITIMER_PROF, signal.SIGPROF) if of_cpu else (signal.ITIMER_REAL, signal.SIGALRM)

    def stop(*_: object) -> None:
        pytest.fail(f"still running after {seconds} s{' of CPU time' if of_cpu else ''}")

    previous = signal.signal(number, stop)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, previous)
