"""One question of a benchmark with its grader, and helpers that benchmarks share."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from acc_megatron.evaluate.models.prompt import Message

CountTokens = Callable[[str], int]
# A grader that matches only the beginning of a long response reports the number of other characters under this key.
UNMATCHED_CHARS = "unmatched_chars"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of a benchmark: the messages to send, and a pure grader that knows the expected answer.

    `groups` names the parts over which means are taken too, such as `{"problem_type": "bfs"}`. `num_tokens` counts the
    contents of the messages with the run's tokenizer. `corrected` marks a published answer that was corrected.
    """

    id: str
    groups: dict[str, str]
    messages: tuple[Message, ...]
    grade: Callable[[str], dict[str, float]]
    num_tokens: int
    corrected: bool = False

    @property
    def sha256(self) -> str:
        """SHA-256 of the messages as JSON; it does not depend on the tokenizer."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


def strip_thinking(response: str) -> str:
    """The text after the last `</think>`, up to a later `<think>` that was never closed.

    Every grader calls this first: a draft inside the thinking is not an answer.
    """
    return response.rpartition("</think>")[2].partition("<think>")[0]


def length_bin(num_tokens: int) -> str:
    """The bin of a length, such as `8192-16384`: bins double, include their lower bound, and start with `0-1024`."""
    low = 1 << max(10, num_tokens.bit_length() - 1)
    return f"{low}-{2 * low}" if num_tokens >= low else "0-1024"


def item_seed(benchmark: str, seed: int, index: int) -> int:
    """A 48-bit seed for each item, so that runs with neighbouring seeds share no item."""
    return int.from_bytes(hashlib.sha256(f"{benchmark}/{seed}/{index}".encode()).digest()[:6])
