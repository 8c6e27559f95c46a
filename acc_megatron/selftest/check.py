"""What a check of the selftest is, and what it can find; does not import torch."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from acc_megatron.errors import AccError

if TYPE_CHECKING:
    from acc_megatron.selftest.place import Place

State = Literal["PASS", "FAIL", "SKIP"]
# why a check failed on a rank, the likeliest cause of a failure of the whole check first
Cause = Literal["process ended", "check", "time limit", "error", "stopped"]
CAUSES: tuple[Cause, ...] = ("process ended", "check", "time limit", "error", "stopped")


class CheckFailed(AccError):
    """A check measured something that is wrong on this rank."""

    exit_code = 1


class Skipped(Exception):
    """A check cannot run here, on any rank, for the stated reason."""


@dataclass(frozen=True)
class Found:
    """What a check measured, by names with units; the table shows the largest value of all ranks."""

    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Check(Protocol):
    """One check, run at the same time by every rank in a process of its own."""

    name: str
    summary: str  # what PASS means
    limit_seconds: float  # afterwards the check has failed and its processes are killed
    advice: str  # what to do when it fails

    def run(self, place: "Place") -> Found:
        """Run the check on this rank; raises CheckFailed, or Skipped on every rank."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rank reports of one check."""

    state: State
    figures: dict[str, float] = field(default_factory=dict)
    text: str = ""  # of PASS a note, of SKIP the reason, of FAIL what is wrong
    cause: Cause | None = None
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all ranks together found in one check."""

    name: str
    state: State
    seconds: float
    figures: dict[str, float]
    text: str
    rank: int | None = None  # the rank that explains a failure
    advice: str = ""


def combine(check: Check, outcomes: list[Outcome], seconds: float) -> Result:
    """Join the outcomes of all ranks, in rank order, to a result that is the same on every rank."""
    failed = [(CAUSES.index(o.cause or "error"), o.time, rank) for rank, o in enumerate(outcomes) if o.state == "FAIL"]
    skipped = [rank for rank, outcome in enumerate(outcomes) if outcome.state == "SKIP"]
    figures: dict[str, float] = {}
    for outcome in outcomes:
        for name, value in outcome.figures.items():
            figures[name] = max(value, figures.get(name, value))
    if failed:
        rank = min(failed)[2]
        text = outcomes[rank].text
        others = sorted(other for _, _, other in failed if other != rank)
        if others:
            text += f" (also failed or stopped: rank {', '.join(map(str, others))})"
        return Result(name=check.name, state="FAIL", seconds=seconds, figures=figures, text=text, rank=rank,
                      advice=check.advice)  # fmt: skip
    if skipped and len(skipped) < len(outcomes):
        text = f"rank {skipped[0]} skipped it and other ranks did not: {outcomes[skipped[0]].text}"
        return Result(name=check.name, state="FAIL", seconds=seconds, figures=figures, text=text, rank=skipped[0],
                      advice=check.advice)  # fmt: skip
    state: State = "SKIP" if skipped else "PASS"
    text = next((outcome.text for outcome in outcomes if outcome.text), "")
    return Result(name=check.name, state=state, seconds=seconds, figures=figures, text=text)
