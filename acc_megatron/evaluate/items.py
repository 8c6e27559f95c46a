"""What every benchmark shares: messages, the types of its rows, the question put to a model, and thinking removed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from acc_megatron.errors import ConfigError

Operation = Literal["parents", "bfs"]
Wording = Literal["original", "corrected"]
CountTokens = Callable[[str], int]


class Message(TypedDict):
    """One chat message; `role` is `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One GraphWalks problem; `settings` says how it was generated, and is empty for a published row."""

    id: str
    prompt: str
    answer_nodes: tuple[str, ...]
    problem_type: Operation
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One OpenAI MRCR row under its published column names; `prompt` is a JSON string of messages.

    `n_chars` of a generated row is the number of characters in all message contents.
    """

    prompt: str
    answer: str
    random_string_to_prepend: str
    n_needles: int
    desired_msg_index: int
    total_messages: int
    n_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A row of any benchmark as the runner sees it: what to ask, and a pure grader with the truth bound in.

    `groups` names the parts that means are also taken over, such as `{"problem_type": "bfs"}`; `num_tokens` counts
    the contents of the messages under the run's tokenizer.
    """

    id: str
    benchmark: str
    groups: dict[str, str]
    messages: tuple[Message, ...]
    grade: Callable[[str], dict[str, float]]
    num_tokens: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of the messages as JSON, whatever tokenizer renders them."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


def strip_thinking(response: str) -> str:
    """What follows the last `</think>`, up to a thinking that was opened again and never closed.

    A draft inside thinking is not an answer, so this comes first in every grader.
    """
    return response.rpartition("</think>")[2].partition("<think>")[0]


def length_bin(num_tokens: int) -> str:
    """The doubling bin of a length, closed on the left, such as `8192-16384`; short ones are `0-1024`."""
    low = 1 << max(10, num_tokens.bit_length() - 1)
    return f"{low}-{2 * low}" if num_tokens >= low else "0-1024"


def item_seed(benchmark: str, seed: int, index: int) -> int:
    """A seed of its own for each item, so that runs with neighbouring seeds share no item; 48 bits."""
    return int.from_bytes(hashlib.sha256(f"{benchmark}/{seed}/{index}".encode()).digest()[:6])


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise ConfigError if `value` is below `least`."""
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")
