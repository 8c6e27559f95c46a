"""The interface of a model, and what every model needs to answer prompts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from acc_megatron.common.answer_cache import AnswerCache
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.evaluate.models.chat_ids import chat_ids
from acc_megatron.evaluate.models.prompt import NoAnswer, Outcome, Prompt
from acc_megatron.evaluate.models.settings import ModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """What every model needs to answer; `deadline` is a time of the monotonic clock."""

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
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def out_of_time(self) -> NoAnswer | None:
        """The reason why nothing more is asked; None before the deadline."""
        left = self.seconds_left()
        if left is None or left > 0:
            return None
        return NoAnswer("out_of_time", "max_seconds is used up; run the same command again to continue")


class Model(Protocol):
    """A model that answers prompts."""

    name: str
    window_tokens: int

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens of the rendered prompt, as counted here."""

    def answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """An outcome for each prompt, in order; `on_outcome` is called with each as it arrives."""

    def describe(self) -> dict[str, object]:
        """Where the model is and how it is sampled, for the results."""


def over_window(model: Model, prompt: Prompt) -> NoAnswer | None:
    """Why a prompt cannot be asked: prompt and answer exceed the window. Nothing is ever cut to fit."""
    num_tokens = model.num_prompt_tokens(prompt)
    if num_tokens + prompt.max_new_tokens <= model.window_tokens:
        return None
    return NoAnswer(
        "over_window",
        f"{prompt.id} has {num_tokens} tokens; with {prompt.max_new_tokens} new ones it is over the window of "
        f"{model.window_tokens}; choose shorter rows, a lower max_new_tokens or a longer window",
    )
