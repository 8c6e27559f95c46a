"""The next step's rows are read while the current step runs, in the order of the steps, by one thread."""

import threading
import traceback

import pytest

from acc_megatron.mesh import cpu_backend

cpu_backend.install()

from acc_megatron.data.read_ahead import ReadAhead  # noqa: E402
from acc_megatron.errors import DataError  # noqa: E402

TIMEOUT_SECONDS = 30


def is_reading() -> bool:
    return any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_the_next_step_is_read_in_another_thread_before_it_is_asked_for() -> None:
    seen: list[tuple[int, bool]] = []
    next_is_read = threading.Event()

    def read(step: int) -> str:
        seen.append((step, threading.current_thread() is threading.main_thread()))
        if step == 8:
            next_is_read.set()
        return f"rows of step {step}"

    with ReadAhead[str]() as ahead:
        assert ahead.take(7, read, reads_next=True) == "rows of step 7"
        assert next_is_read.wait(TIMEOUT_SECONDS)
        assert ahead.take(8, read, reads_next=False) == "rows of step 8"
    assert seen == [(7, True), (8, False)], "each step is read once, and none after the last"


def test_rows_that_were_read_for_another_step_are_not_used() -> None:
    with ReadAhead[int]() as ahead:
        ahead.take(0, lambda step: step, reads_next=True)
        assert ahead.take(5, lambda step: step, reads_next=True) == 5
        assert ahead.take(6, lambda step: step, reads_next=False) == 6


def test_an_error_of_the_thread_is_raised_with_the_place_where_it_happened() -> None:
    def read(step: int) -> int:
        if step == 1:
            raise DataError("tokens.bin was truncated")
        return step

    with ReadAhead[int]() as ahead:
        ahead.take(0, read, reads_next=True)
        with pytest.raises(DataError, match=r"tokens\.bin was truncated") as caught:
            ahead.take(1, read, reads_next=False)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "read" and any("concurrent" in frame.filename for frame in frames)


def test_the_thread_ends_with_the_run_even_if_the_run_fails() -> None:
    with pytest.raises(RuntimeError, match="the step failed"), ReadAhead[int]() as ahead:
        ahead.take(0, lambda step: step, reads_next=True)
        assert is_reading()
        raise RuntimeError("the step failed")
    assert not is_reading()
