"""Contents of Google's Gemini API: messages of role user and model, whose parts are text, calls and their responses.

Google's Agent Development Kit logs them as events with a `content`, as BIRD-Interact and LiveSQLBench publish them.
"""

from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS, Message, MessageLog

_CALL_KEYS = ("functionCall", "function_call")
_RESPONSE_KEYS = ("functionResponse", "function_response")
_RESULT_KEYS = ("result", "output", "content", "error")
_TYPES = {
    "function_call": _CALL_KEYS,
    "function_response": _RESPONSE_KEYS,
}  # parts that are calls or responses themselves


class Gemini(MessageLog):
    """A call becomes a tool call, a response a tool message, and a part with `thought` reasoning."""

    name = "Gemini contents"
    item_keys = frozenset(("parts", "author"))
    keys = ("contents", *MESSAGE_KEYS)

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether every item has parts, and any is the model's."""
        contents = [_content(item) for item in items]
        return all(_is_content(item) for item in contents) and any(item.get("role") == "model" for item in contents)

    def messages(self, items: list[Message]) -> list[Message]:
        """The contents as OpenAI messages."""
        messages: list[Message] = []
        for item in map(_content, items):
            parts: list[dict[str, Any]] = item["parts"]
            calls = [call for part in parts if (call := _object(part, _CALL_KEYS)) is not None]
            responses = [found for part in parts if (found := _object(part, _RESPONSE_KEYS)) is not None]
            thoughts = text_of_parts([part for part in parts if part.get("thought") is True])
            text = text_of_parts([part for part in parts if part.get("thought") is not True])
            if item.get("role") == "model":
                message = {"role": "assistant", "content": text, "reasoning_content": thoughts}
                messages.append(openai_message(message | {"tool_calls": [_call(call) for call in calls]}))
            elif not responses:
                messages.append({"role": item.get("role") or "user", "content": text})
            else:
                messages += [openai_message(_response(response)) for response in responses]
        return messages


def _content(item: Message) -> Message:
    """The content of an event, and a user's message of BIRD-Interact as a content; any other item stays as it is."""
    content, message = item.get("content"), item.get("message")
    if item.get("type") == "user_message" and isinstance(message, str):
        return {"role": "user", "parts": [{"text": message}]}
    return content if isinstance(content, dict) and "parts" in content else item


def _is_content(item: Message) -> bool:
    parts = item.get("parts")
    return isinstance(parts, list) and all(isinstance(part, dict) for part in parts)


def _object(part: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any] | None:
    if _TYPES.get(str(part.get("type"))) == keys:
        return part
    return next((found for key in keys if isinstance(found := part.get(key), dict)), None)


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"id": call.get("id") or "", "function": {"name": call.get("name"), "arguments": call.get("args") or {}}}


def _response(response: dict[str, Any]) -> Message:
    """A tool message with the only value of the response, or with all of its object."""
    found = response.get("response")
    found = embedded_object(found) or found
    if isinstance(found, dict) and len(found) == 1 and (key := next(iter(found))) in _RESULT_KEYS:
        found = found[key]
    return {
        "role": "tool",
        "name": response.get("name"),
        "tool_call_id": response.get("id") or "",
        "content": found if found is not None else "",
    }
