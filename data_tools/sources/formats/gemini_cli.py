"""Session logs of Gemini CLI: messages of type `user` and `gemini`, with calls that contain their results."""

from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in, optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_OUTPUT_KEYS = ("output", "error", "result")


class GeminiCli(MessageLog):
    """Messages of the client (`info`, `error`) and changes of the session are left out."""

    name = "Gemini CLI session"
    item_keys = frozenset(("type",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is a message of the model."""
        return any(item.get("type") == "gemini" for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The messages in OpenAI's form."""
        messages: list[Message] = []
        for item in items:
            text = text_of_parts(item.get("content"))
            if item.get("type") == "user":
                messages.append({"role": "user", "content": text})
            elif item.get("type") == "gemini":
                calls = objects_in(item.get("toolCalls"))
                message = {"role": "assistant", "content": text, "reasoning_content": _reasoning(item)}
                messages.append(openai_message(message | {"tool_calls": [_call(call) for call in calls]}))
                messages += [openai_message(_output(call)) for call in calls]
        return messages


def _reasoning(item: Message) -> str:
    """The subjects of the thoughts with their descriptions."""
    parts = ([thought.get(key) for key in ("subject", "description")] for thought in objects_in(item.get("thoughts")))
    return "\n\n".join("\n".join(text for text in part if isinstance(text, str) and text.strip()) for part in parts)


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"id": call.get("id") or "", "function": {"name": call.get("name"), "arguments": call.get("args") or {}}}


def _output(call: dict[str, Any]) -> Message:
    """The response of a call as the model saw it, otherwise as the client showed it."""
    responses = (
        optional_object(optional_object(part, "functionResponse"), "response")
        for part in objects_in(call.get("result"))
    )
    texts = [text for found in responses for key in _OUTPUT_KEYS if isinstance(text := found.get(key), str)]
    shown = call.get("resultDisplay")
    output = "\n".join(texts) or (shown if isinstance(shown, str) else "")
    return {"role": "tool", "tool_call_id": call.get("id") or "", "name": call.get("name"), "content": output}
