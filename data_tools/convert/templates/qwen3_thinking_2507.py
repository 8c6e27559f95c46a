"""Qwen3-Thinking-2507: the turns of Qwen3, but the prompt already contains `<think>` and a newline.

Every supervised turn therefore has a thinking, be it empty. The text after the newline is encoded by itself, as at
inference: the prompt's ids stay an exact prefix of the document's, whatever the reasoning starts with.
"""

from acc_megatron.data_tools.convert.templates.qwen3 import Qwen3
from acc_megatron.data_tools.convert.templates.template import Writer


class Qwen3Thinking2507(Qwen3):
    """The template of Qwen/Qwen3-30B-A3B-Thinking-2507 and its siblings."""

    name = "qwen3-thinking-2507"
    summary = "the prompt ends with <think>"
    generation_prefix = "<think>\n"

    def write_generation_prompt(self, writer: Writer) -> None:
        """Write the start of an assistant turn with its `<think>` and newline."""
        super().write_generation_prompt(writer)
        writer.control("<think>").text("\n")

    def _write_thinking(self, writer: Writer, reasoning: str, supervised: bool) -> None:
        writer.text(f"{reasoning}\n", supervised=supervised)
