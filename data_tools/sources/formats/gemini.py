"""Contents of Google's Gemini API: messages of role user and model, whose parts are text, calls and their responses."""

from typing import Any

from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS, Message, MessageLog

_CALL_KEYS = ("functionCall", "function_call")
_RESPONSE_KEYS = ("functionResponse", "function_response")
_RESULT_KEYS = ("result", "output", "content", "error")


class Gemini(MessageLog):
    """A call becomes a tool call, a response a tool message, and a part with `thought` reasoning."""

    name = "Gemini contents"
    item_keys = frozenset(("parts",))
    keys = ("contents", *MESSAGE_KEYS)

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether every item has parts, and any is the model's."""
        return all(_is_content(item) for item in items) and any(item.get("role") == "model" for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The contents as OpenAI messages."""
        messages: list[Message] = []
        for item in items:
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


def _is_content(item: Message) -> bool:
    parts = item.get("parts")
    return isinstance(parts, list) and all(isinstance(part, dict) for part in parts)


def _object(part: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any] | None:
    return next((found for key in keys if isinstance(found := part.get(key), dict)), None)


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"id": call.get("id") or "", "function": {"name": call.get("name"), "arguments": call.get("args") or {}}}


def _response(response: dict[str, Any]) -> Message:
    """A tool message with the only value of the response, or with all of its object."""
    found = response.get("response")
    if isinstance(found, dict) and len(found) == 1 and (key := next(iter(found))) in _RESULT_KEYS:
        found = found[key]
    return {
        "role": "tool",
        "name": response.get("name"),
        "tool_call_id": response.get("id") or "",
        "content": found if found is not None else "",
    }
