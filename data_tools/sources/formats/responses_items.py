"""Items and whole responses of OpenAI's Responses API, as mini-swe-agent keeps them."""

import json
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts, with_data_as_text
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.formats.message_steps import arguments_of

_SERVER_CALLS = {"web_search_call", "file_search_call", "mcp_call"}  # of tools that the provider runs


class ResponsesItems(MessageLog):
    """Items between two tool outputs become one assistant message; items of other kinds are left out."""

    name = "Responses API items"

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is a whole response, the output of a function call, or a call of a provider's tool."""
        kinds = {"function_call_output", *_SERVER_CALLS}
        return any(item.get("object") == "response" or str(item.get("type")) in kinds for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The items as OpenAI messages."""
        messages: list[Message] = []
        from_model: list[Message] = []
        open_message: dict[str, Any] | None = None  # the assistant message that no output has followed yet
        flat = list(_flat(items))
        answered = {item.get("call_id") for item in flat if _kind(item).endswith("_output")}
        for item in flat:
            kind = _kind(item)
            is_call = kind.endswith("_call") and ("name" in item or item.get("call_id") in answered or "output" in item)
            if not is_call and kind != "reasoning" and item.get("role") != "assistant":
                if kind.endswith("_output") or "role" in item:
                    messages.append(_tool_output(item) if kind.endswith("_output") else openai_message(item))
                    open_message = None
                continue
            if open_message is None:
                open_message = {"role": "assistant", "content": [], "reasoning_content": [], "tool_calls": []}
                messages.append(open_message)
                from_model.append(open_message)
            if is_call:
                open_message["tool_calls"].append(_call(item))
                if "output" in item:  # a call that the server made
                    messages.append(_tool_output(item))
                    open_message = None
            else:
                text = text_of_parts(item.get("content")) or text_of_parts(item.get("summary"))
                open_message["reasoning_content" if kind == "reasoning" else "content"] += [text] if text else []
        for message in from_model:
            message.update({key: "\n\n".join(message[key]) for key in ("content", "reasoning_content")})
        return messages


def _kind(item: Message) -> str:
    return str(item.get("type", ""))


def _call(item: Message) -> Message:
    """A call of a function; calls of other tools (`local_shell_call`, `tool_search_call`) are named by their type."""
    arguments: object = next((item[key] for key in ("arguments", "input", "action") if item.get(key) is not None), {})
    function = {"name": item.get("name") or _kind(item).removesuffix("_call"), "arguments": arguments_of(arguments)}
    return {"id": _call_id(item), "function": function}


def _tool_output(item: Message) -> Message:
    output = item["output"] if "output" in item else item.get("tools")
    if isinstance(output, dict) and "content" in output:  # of older versions of Codex
        output = output["content"]
    return {"role": "tool", "tool_call_id": _call_id(item), "content": with_data_as_text(output)}


def _call_id(item: Message) -> str:
    return str(item.get("call_id") or item.get("id") or "")


def _flat(items: list[Message]) -> Iterator[Message]:
    """The items; whole responses are replaced by the items of their output, and calls by a call and its output."""
    for item in items:
        output = item.get("output")
        if item.get("object") == "response" and isinstance(output, list):
            yield from _flat([part for part in output if isinstance(part, dict)])
        elif item.get("type") in _SERVER_CALLS:
            yield from _call_and_output(item)
        else:
            yield item


def _call_and_output(item: Message) -> Iterator[Message]:
    """A call of a tool of the provider and its output, such as results; nothing for a call without an output."""
    output = item.get("output") or item.get("results")
    if output:
        name = item.get("name") or item["type"].removesuffix("_call")
        given = item.get("arguments") or optional_object(item, "action") or {"query": item.get("queries")}
        yield {"type": "function_call", "name": name, "call_id": item.get("id"), "arguments": given}
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        yield {"type": "function_call_output", "call_id": item.get("id"), "output": text}
