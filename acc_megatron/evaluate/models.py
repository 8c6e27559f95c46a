"""What a benchmark sees of a model: prompts go in, answers come out, and what has no answer says why."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from acc_megatron.data_tools.answer_cache import AnswerCache
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.evaluate.chat import chat_ids
from acc_megatron.evaluate.items import Message
from acc_megatron.evaluate.settings import ModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question as it is sent; `repeat` numbers the samples of the same question, from 0."""

    id: str
    messages: tuple[Message, ...]
    max_new_tokens: int
    repeat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model wrote: `response` with any thinking that was not split off by its server, for the graders.

    `finish_reason` is `stop`, or `length` where it had not ended at `max_new_tokens`, or another word of the server.
    """

    response: str
    reasoning_chars: int
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a question has no answer: a short slug, and more in words."""

    reason: str
    detail: str


Outcome = Answer | NoAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What a model is asked with, wherever it runs; `deadline` is of the monotonic clock."""

    name: str
    settings: ModelSettings
    tokenizer: Tokenizer
    cache: AnswerCache
    seed: int
    deadline: float | None

    def ids(self, prompt: Prompt) -> np.ndarray:
        """The rendered prompt, int32 `[tokens]`."""
        return chat_ids(prompt.messages, self.tokenizer, self.settings.template)

    def seconds_left(self) -> float | None:
        """Until the deadline, if there is one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def out_of_time(self) -> NoAnswer | None:
        """Why nothing more is asked, once the deadline is over."""
        left = self.seconds_left()
        if left is None or left > 0:
            return None
        return NoAnswer("out_of_time", "max_seconds were over; run again to go on")


class Model(Protocol):
    """A model that is asked; `describe` says for the results what it was."""

    name: str
    window_tokens: int

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """The tokens of the rendered prompt, as counted here."""

    def answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """An outcome for each prompt, in order; `on_outcome` hears of each as it comes."""

    def describe(self) -> dict[str, object]:
        """Source, precision and settings."""


@dataclass
class Tally:
    """What a model was asked and what it cost, with a line of progress every few seconds."""

    label: str
    price_input: float
    price_output: float
    num_expected: int
    show: Callable[[str], None]
    every_seconds: float = 10.0
    num_answers: int = 0
    num_cut: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome, and show the line when its time has come."""
        if isinstance(outcome, Answer):
            self.num_answers += 1
            self.num_cut += outcome.finish_reason == "length"
            self.prompt_tokens += outcome.prompt_tokens
            self.new_tokens += outcome.new_tokens
        else:
            self.refused[outcome.reason] += 1
            self.details.setdefault(outcome.reason, outcome.detail)
        if time.monotonic() - self._shown >= self.every_seconds:
            self._shown = time.monotonic()
            self.show(self.line())

    @property
    def cost(self) -> float:
        """Money for the answers at the stated prices."""
        return (self.prompt_tokens * self.price_input + self.new_tokens * self.price_output) / 1e6

    def line(self) -> str:
        """Where the run stands, in one line."""
        done = self.num_answers + sum(self.refused.values())
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = seconds * max(0, self.num_expected - done) / max(1, done)
        none = f", {sum(self.refused.values())} without answer" if self.refused else ""
        cost = f", cost {self.cost:,.2f}" if self.cost else ""
        return (
            f"eval {self.label}: {done:,} of {self.num_expected:,}{none}, {self.prompt_tokens:,} tokens in, "
            f"{self.new_tokens:,} out{cost}, {seconds:,.0f} s, about {left:,.0f} s left"
        )

    def as_dict(self) -> dict[str, object]:
        """For the results: counts, tokens and money."""
        return {
            "num_answers": self.num_answers,
            "num_cut_at_max_new_tokens": self.num_cut,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "cost": round(self.cost, 6),
            "without_answer": dict(self.refused),
            "details": self.details,
        }


def fits(model: Model, prompt: Prompt) -> NoAnswer | None:
    """Why a prompt cannot be asked: with its answer it is longer than the window. Nothing is ever cut to fit."""
    num_tokens = model.num_prompt_tokens(prompt)
    if num_tokens + prompt.max_new_tokens <= model.window_tokens:
        return None
    return NoAnswer(
        "over_window",
        f"{prompt.id} has {num_tokens} tokens, with {prompt.max_new_tokens} new ones over the window of "
        f"{model.window_tokens}; choose shorter rows, a lower max_new_tokens or a longer window",
    )
