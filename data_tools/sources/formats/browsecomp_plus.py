"""Runs of BrowseComp-Plus: `result` lists reasoning, tool calls with their outputs, and the closing text."""

from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_TYPES = {"tool_call", "output_text", "reasoning"}


class BrowseCompPlus(MessageLog):
    """Items with `type`, `tool_name`, `arguments` and `output`; the answer must be in the row as well."""

    name = "BrowseComp-Plus run"
    item_keys = frozenset(("output",))
    keys = ("result",)

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether every item is reasoning, a call or a closing text, with an output."""
        return all(item.get("type") in _TYPES and "output" in item and "role" not in item for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The items as OpenAI messages; reasoning belongs to the call or the text after it."""
        messages: list[Message] = []
        thoughts: list[str] = []
        for item in items:
            if item["type"] == "reasoning":
                thoughts.append(text_of_parts(item["output"]).strip())
                continue
            reasoning = {"reasoning_content": "\n\n".join(thought for thought in thoughts if thought)}
            thoughts = []
            if item["type"] == "output_text":
                messages.append({"role": "assistant", "content": text_of_parts(item["output"])} | reasoning)
                continue
            call = {"name": item.get("tool_name"), "arguments": item.get("arguments")}
            messages.append({"role": "assistant", "content": "", "tool_calls": [{"function": call}]} | reasoning)
            messages.append(openai_message({"role": "tool", "content": item["output"]}))
        return messages
