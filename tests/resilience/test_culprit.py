"""The rank that holds the others up is named by who is silent, who is behind, and who is in no collective."""

import sys

import torch.distributed as dist

from acc_megatron.resilience.culprit import Answer, blame
from acc_megatron.resilience.watchdog import stands_in_collective


def at(number: int, section: str, waits: bool = True) -> Answer:
    return Answer(number=number, section=section, step=7, since=0.0, waits_for_others=waits)


def test_a_silent_rank_is_the_culprit_whatever_the_others_say() -> None:
    answers = {0: at(5, "optimizer"), 2: at(4, "data")}
    assert blame(answers, 3).startswith("rank 1 did not answer")


def test_the_rank_furthest_behind_is_the_culprit() -> None:
    answers = {0: at(5, "forward and backward"), 1: at(4, "data", False), 2: at(5, "forward and backward")}
    assert blame(answers, 3) == (
        "rank 1 stopped in 'data' of step 7, the others wait in 'forward and backward' of step 7"
    )


def test_within_one_section_it_is_the_rank_in_no_collective() -> None:
    answers = {rank: at(5, "forward and backward", waits=rank != 3) for rank in range(4)}
    assert blame(answers, 4).startswith("rank 3 stopped in 'forward and backward' of step 7, outside any collective")


def test_nobody_is_named_when_all_look_alike() -> None:
    answers = {rank: at(5, "forward and backward") for rank in range(4)}
    assert "no single one can be named" in blame(answers, 4)


def test_a_stack_inside_torch_distributed_counts_as_waiting() -> None:
    frames: list[bool] = []

    def trace(frame: object, event: str, argument: object) -> None:
        frames.append(stands_in_collective(frame))  # type: ignore[arg-type]

    sys.setprofile(trace)
    try:
        dist.is_initialized()
    finally:
        sys.setprofile(None)
    assert frames[0] is True and frames[-1] is False
