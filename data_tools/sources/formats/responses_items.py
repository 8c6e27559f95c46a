"""Items and whole responses of OpenAI's Responses API, as mini-swe-agent keeps them."""

from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog


class ResponsesItems(MessageLog):
    """Items between two tool outputs become one assistant message."""

    name = "Responses API items"
    item_keys = frozenset(("object", "type"))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is a whole response or the output of a function call."""
        return any(item.get("object") == "response" or item.get("type") == "function_call_output" for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The items as OpenAI messages."""
        messages: list[Message] = []
        from_model: list[Message] = []
        open_message: dict[str, Any] | None = None  # the assistant message that no output has followed yet
        for item in _flat(items):
            kind = item.get("type")
            if kind not in ("function_call", "reasoning") and item.get("role") != "assistant":
                messages.append(_tool_output(item) if kind == "function_call_output" else openai_message(item))
                open_message = None
                continue
            if open_message is None:
                open_message = {"role": "assistant", "content": [], "reasoning_content": [], "tool_calls": []}
                messages.append(open_message)
                from_model.append(open_message)
            if kind == "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                open_message["tool_calls"].append({"id": item.get("call_id"), "function": function})
            else:
                text = text_of_parts(item.get("content")) or text_of_parts(item.get("summary"))
                open_message["reasoning_content" if kind == "reasoning" else "content"] += [text] if text else []
        for message in from_model:
            message.update({key: "\n\n".join(message[key]) for key in ("content", "reasoning_content")})
        return messages


def _tool_output(item: Message) -> Message:
    return {"role": "tool", "tool_call_id": item.get("call_id"), "content": text_of_parts(item.get("output"))}


def _flat(items: list[Message]) -> Iterator[Message]:
    """The items, with each whole response replaced by the items of its output."""
    for item in items:
        output = item.get("output")
        if item.get("object") == "response" and isinstance(output, list):
            yield from (part for part in output if isinstance(part, dict))
        else:
            yield item
