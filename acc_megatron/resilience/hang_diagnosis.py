"""Find the rank that blocks the others, from the section that each rank is in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """The position of a rank; `number` counts the sections it entered, in the same order on all ranks."""

    number: int
    section: str
    step: int
    since: float  # on that rank's own clock
    waits_for_others: bool  # its main thread is inside a collective

    def describe(self, now: float) -> str:
        """The first line of the rank's stack file."""
        how = "waiting inside a collective" if self.waits_for_others else "outside any collective"
        return f"in {self.section!r} of step {self.step} for {now - self.since:.1f} s, {how}"


def blame(answers: dict[int, Answer], world: int) -> str:
    """Describe which ranks block the others.

    Ranks that do not answer; otherwise the ranks furthest behind; otherwise the ranks outside any collective;
    otherwise no rank can be named.
    """
    silent = sorted(set(range(world)) - set(answers))
    if silent:
        return f"{_ranks(silent)} did not answer: the process has ended, or its Python interpreter is blocked"
    behind = min(answer.number for answer in answers.values())
    last = sorted(rank for rank, answer in answers.items() if answer.number == behind)
    place = f"in {answers[last[0]].section!r} of step {answers[last[0]].step}"
    if len(last) < len(answers):
        first = max(answers.values(), key=lambda answer: answer.number)
        return f"{_ranks(last)} stopped {place}; the others wait in {first.section!r} of step {first.step}"
    outside = sorted(rank for rank in last if not answers[rank].waits_for_others)
    if outside and (len(outside) < world or world == 1):
        return f"{_ranks(outside)} stopped {place}" + (
            ", outside any collective, while the others wait in one" if world > 1 else ""
        )
    return f"all {world} ranks are {place}, so no rank can be named; compare their stacks"


def _ranks(ranks: list[int], most: int = 16) -> str:
    shown = ", ".join(map(str, ranks[:most])) + (f" and {len(ranks) - most} more" if len(ranks) > most else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
