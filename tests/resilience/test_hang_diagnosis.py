"""The rank that blocks the others is found by missing answers, by progress, and by who is in no collective."""

import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from acc_megatron.resilience.hang_diagnosis import Answer, blame
from acc_megatron.resilience.watchdog import is_in_collective


def at(number: int, section: str, waits: bool = True) -> Answer:
    return Answer(number=number, section=section, step=7, since=0.0, waits_for_others=waits)


def test_a_rank_that_does_not_answer_is_named_first() -> None:
    answers = {0: at(5, "optimizer"), 2: at(4, "data")}
    assert blame(answers, 3).startswith("rank 1 did not answer")


def test_the_rank_furthest_behind_is_named() -> None:
    answers = {0: at(5, "forward and backward"), 1: at(4, "data", False), 2: at(5, "forward and backward")}
    assert blame(answers, 3) == (
        "rank 1 stopped in 'data' of step 7; the others wait in 'forward and backward' of step 7"
    )


def test_within_one_section_the_rank_outside_a_collective_is_named() -> None:
    answers = {rank: at(5, "forward and backward", waits=rank != 3) for rank in range(4)}
    assert blame(answers, 4).startswith("rank 3 stopped in 'forward and backward' of step 7, outside any collective")


def test_no_rank_is_named_when_all_are_in_the_same_place() -> None:
    answers = {rank: at(5, "forward and backward") for rank in range(4)}
    assert "no rank can be named" in blame(answers, 4)


def test_a_stack_inside_torch_distributed_counts_as_waiting() -> None:
    frames: list[bool] = []

    def trace(frame: object, event: str, argument: object) -> None:
        frames.append(is_in_collective(frame))  # type: ignore[arg-type]

    sys.setprofile(trace)
    try:
        dist.is_initialized()
    finally:
        sys.setprofile(None)
    assert frames[0] is True and frames[-1] is False


class Waiting:
    """A stand-in for a tensor on a busy GPU: its methods wait, as torch's do, without a Python frame."""

    def __init__(self, wait: Callable[..., object]) -> None:
        self.item = self.tolist = self.cpu = self.release = wait


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        (lambda x: [x.item()], True),
        (lambda x: (1, x.tolist()), True),
        (lambda x: x.cpu(), True),
        (lambda x: x.release(), False),
    ],
    ids=["item", "tolist", "cpu", "other"],
)
def test_a_stack_that_copies_a_value_from_the_gpu_counts_as_waiting(
    call: Callable[[Waiting], object], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    lock = threading.Lock()
    lock.acquire()
    thread = threading.Thread(target=call, args=(Waiting(lock.acquire),))
    thread.start()
    try:
        until = time.monotonic() + 30
        while True:
            frame = sys._current_frames().get(thread.ident or 0)
            if frame is not None and frame.f_code.co_name == "<lambda>":
                break
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.05)
        assert is_in_collective(sys._current_frames()[thread.ident or 0]) is waits
    finally:
        lock.release()
        thread.join()
