"""Qwen3's hybrid models: ChatML turns, and a reply that starts with its own `<think>`.

Source: `chat_template` in the tokenizer_config.json of Qwen3. The official template removes the thinking of replies to
earlier questions. Here the thinking of a supervised turn is always written, because the loss covers it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.template import Writer

TOOLS_OPENING = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_CLOSING = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)
_CALL_TAG = re.compile("(</?tool_call>)")


class Qwen3:
    """The template of Qwen/Qwen3-30B-A3B and its hybrid siblings."""

    name = "qwen3"
    summary = "the reply starts with <think>"
    control_tokens: tuple[str, ...] = (
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
    )
    generation_prefix = ""

    def write_turns(self, writer: Writer, turns: Sequence[Turn]) -> None:
        """Write complete turns; consecutive tool turns share one user turn."""
        last_question = max((number for number, turn in enumerate(turns) if turn.role == "user"), default=-1)
        for number, turn in enumerate(turns):
            previous = turns[number - 1].role if number else None
            following = turns[number + 1].role if number + 1 < len(turns) else None
            if turn.role == "assistant":
                keeps_thinking = turn.supervised or number > last_question
                kept = turn if keeps_thinking else replace(turn, reasoning="")
                self._write_assistant(writer, kept, is_last=following is None)
            elif turn.role == "tool":
                self._write_tool(writer, turn, is_first=previous != "tool", is_last=following != "tool")
            elif turn.tools:
                self._write_tools(writer, turn)
            else:
                writer.control("<|im_start|>").text(f"{turn.role}\n{turn.text}").control("<|im_end|>").text("\n")

    def write_generation_prompt(self, writer: Writer) -> None:
        """Write the start of an assistant turn."""
        writer.control("<|im_start|>").text("assistant\n")

    def request_fields(self, enable_thinking: bool | None) -> dict[str, Any]:
        """The switch that servers pass on to the template."""
        return {} if enable_thinking is None else {"chat_template_kwargs": {"enable_thinking": enable_thinking}}

    def _write_assistant(self, writer: Writer, turn: Turn, *, is_last: bool) -> None:
        supervised = turn.supervised
        if turn.reasoning or is_last or (self.generation_prefix and supervised):
            self.write_generation_prompt(writer)
            self._write_thinking(writer, turn.reasoning.strip("\n"), supervised)
            text = turn.text.lstrip("\n")
            writer.control("</think>", supervised=supervised).text(f"\n\n{text}", supervised=supervised)
        else:
            writer.control("<|im_start|>").text("assistant\n").text(turn.text, supervised=supervised)
        self._write_calls(writer, turn)

    def _write_calls(self, writer: Writer, turn: Turn) -> None:
        """The calls of an assistant turn, and its end."""
        supervised = turn.supervised
        for number, call in enumerate(turn.tool_calls):
            if turn.text or number:
                writer.text("\n", supervised=supervised)
            writer.control("<tool_call>", supervised=supervised).text(f"\n{call}\n", supervised=supervised)
            writer.control("</tool_call>", supervised=supervised)
        writer.control("<|im_end|>", supervised=supervised).text("\n")

    def _write_thinking(self, writer: Writer, reasoning: str, supervised: bool) -> None:
        """The part of the thinking between the generation prompt and `</think>`."""
        # the newline after <think> and the reasoning are one text, so that they merge as in the official template
        writer.control("<think>", supervised=supervised).text(f"\n{reasoning}\n", supervised=supervised)

    def _write_tools(self, writer: Writer, turn: Turn) -> None:
        """A system turn that defines tools."""
        opening = f"{turn.text}\n\n{TOOLS_OPENING}" if turn.text else TOOLS_OPENING
        writer.control("<|im_start|>").text(f"system\n{opening}")
        for tool in turn.tools:
            writer.text(f"\n{tool}")
        write_with_call_tags(writer, TOOLS_CLOSING)
        writer.control("<|im_end|>").text("\n")

    def _write_tool(self, writer: Writer, turn: Turn, *, is_first: bool, is_last: bool) -> None:
        """The output of a tool, in a user turn that it shares with its neighbours."""
        if is_first:
            writer.control("<|im_start|>").text("user")
        writer.text("\n").control("<tool_response>").text(f"\n{turn.text}\n").control("</tool_response>")
        if is_last:
            writer.control("<|im_end|>").text("\n")


def write_with_call_tags(writer: Writer, text: str) -> None:
    """Write text of the template itself, in which `<tool_call>` and `</tool_call>` are control tokens."""
    for part in _CALL_TAG.split(text):
        if _CALL_TAG.fullmatch(part):
            writer.control(part)
        else:
            writer.text(part)
