"""A prompt for a model and its outcome: an answer, or the reason why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict


class Message(TypedDict):
    """One chat message; `role` is `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question as it is sent; `repeat` numbers the samples of the same question from 0."""

    id: str
    messages: tuple[Message, ...]
    max_new_tokens: int
    repeat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A model's answer.

    `response` contains the thinking too where the server did not separate it; graders remove it. `finish_reason` is
    `stop`, `length` for an answer that was cut at `max_new_tokens`, or another word of the server.
    """

    response: str
    reasoning_chars: int
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a question has no answer: a short slug and a sentence."""

    reason: str
    detail: str


Outcome = Answer | NoAnswer
Ask = Callable[[list[Prompt]], list[Outcome]]  # sends prompts to the model; outcomes come in the same order
