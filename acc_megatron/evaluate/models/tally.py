"""Counts of one model's outcomes on one benchmark: progress while it runs, tokens and cost in the results."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from acc_megatron.evaluate.models.prompt import Answer, Outcome
from acc_megatron.evaluate.results_format import Asked


@dataclass
class Tally:
    """Counts outcomes and shows a line of progress every `every_seconds`."""

    label: str
    price_input: float
    price_output: float
    show: Callable[[str], None]
    num_expected: int = 0
    every_seconds: float = 10.0
    num_answers: int = 0
    num_cut: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    without_answer: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome; show the progress line when it is due."""
        if isinstance(outcome, Answer):
            self.num_answers += 1
            self.num_cut += outcome.finish_reason == "length"
            self.prompt_tokens += outcome.prompt_tokens
            self.new_tokens += outcome.new_tokens
        else:
            self.without_answer[outcome.reason] += 1
            self.details.setdefault(outcome.reason, outcome.detail)
        if time.monotonic() - self._shown >= self.every_seconds:
            self._shown = time.monotonic()
            self.show(self.line())

    @property
    def cost(self) -> float:
        """Cost of the answers at the stated prices."""
        return (self.prompt_tokens * self.price_input + self.new_tokens * self.price_output) / 1e6

    def line(self) -> str:
        """The progress in one line."""
        num_without = sum(self.without_answer.values())
        done = self.num_answers + num_without
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = seconds * max(0, self.num_expected - done) / max(1, done)
        without = f", {num_without} without answer" if num_without else ""
        cost = f", cost {self.cost:,.2f}" if self.cost else ""
        return (
            f"eval {self.label}: {done:,} of {self.num_expected:,}{without}, {self.prompt_tokens:,} tokens in, "
            f"{self.new_tokens:,} out{cost}, {seconds:,.0f} s, about {left:,.0f} s left"
        )

    def asked(self, num_longer_than_matched: int) -> Asked:
        """The counts as they are written to the results."""
        return {
            "num_answers": self.num_answers,
            "num_cut_at_max_new_tokens": self.num_cut,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "cost": round(self.cost, 6),
            "without_answer": dict(self.without_answer),
            "details": self.details,
            "num_longer_than_matched": num_longer_than_matched,
        }
