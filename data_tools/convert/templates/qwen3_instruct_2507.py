"""Qwen3-Instruct-2507: the turns of Qwen3 without thinking.

The official template ignores `reasoning_content`. So that no reasoning is lost, it is written as text before the reply.
"""

from dataclasses import replace

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.qwen3 import Qwen3
from acc_megatron.data_tools.convert.templates.template import Writer


class Qwen3Instruct2507(Qwen3):
    """The template of Qwen/Qwen3-30B-A3B-Instruct-2507 and its siblings."""

    name = "qwen3-instruct-2507"
    summary = "no thinking, reasoning is text before the reply"
    control_tokens: tuple[str, ...] = tuple(name for name in Qwen3.control_tokens if "think" not in name)

    def _write_assistant(self, writer: Writer, turn: Turn, *, is_last: bool) -> None:
        self.write_generation_prompt(writer)
        turn = without_thinking(turn)
        writer.text(turn.text, supervised=turn.supervised)
        self._write_calls(writer, turn)


def without_thinking(turn: Turn) -> Turn:
    """The turn with its reasoning, if it has any, as the first paragraph of its text."""
    reasoning = turn.reasoning.strip("\n")
    if not reasoning:
        return turn
    text = turn.text.lstrip("\n")
    return replace(turn, reasoning="", text=f"{reasoning}\n\n{text}" if text else reasoning)
