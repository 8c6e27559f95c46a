"""The protocol of a chat template. It must stay cheap to import: the command line lists the templates in its help."""

from collections.abc import Sequence
from typing import Any, Protocol

from acc_megatron.data_tools.conversation import Turn


class Writer(Protocol):
    """Takes a chat as control tokens and plain text; `supervised` parts enter the loss."""

    def control(self, name: str, *, supervised: bool = False) -> "Writer":
        """Append a control token by id."""

    def text(self, text: str, *, supervised: bool = False) -> "Writer":
        """Append plain text, which is never parsed for control tokens.

        Neighbouring texts are encoded together unless a control token or a change of `supervised` separates them.
        """


class ChatTemplate(Protocol):
    """How a model family writes a chat, in training documents and in prompts.

    `summary` is the line of `--help`. The tokenizer must have all `control_tokens`. `generation_prefix` is the start of
    the reply that the prompt already contains, such as `<think>` and a newline: a model's output does not repeat it.
    """

    name: str
    summary: str
    control_tokens: tuple[str, ...]
    generation_prefix: str

    def write_turns(self, writer: Writer, turns: Sequence[Turn]) -> None:
        """Write complete turns; exactly what a model generates in a supervised turn must be marked as supervised."""

    def write_generation_prompt(self, writer: Writer) -> None:
        """Write the start of an assistant turn up to and including `generation_prefix`."""

    def request_fields(self, enable_thinking: bool | None) -> dict[str, Any]:
        """Fields to add to a chat completion request; None leaves thinking to the server's default."""
