"""Session logs ("rollouts") of Codex: the items of the Responses API in envelopes, among events of the client."""

from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.formats.responses_items import ResponsesItems

_CLIENT_TEXTS = ("<environment_context>", "<user_instructions>", "<permissions")  # user messages of the client


class Codex(MessageLog):
    """Events of type `response_item`; calls of custom tools and of the local shell are calls like any other."""

    name = "Codex session"
    item_keys = frozenset(("payload",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is the envelope of an item of the Responses API."""
        return any(item.get("type") == "response_item" and isinstance(item.get("payload"), dict) for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The items as OpenAI messages."""
        payloads = [optional_object(item, "payload") for item in items if item.get("type") == "response_item"]
        return ResponsesItems().messages([_item(payload) for payload in payloads if not _is_of_client(payload)])


def _is_of_client(payload: dict[str, Any]) -> bool:
    text = text_of_parts(payload.get("content"))
    return payload.get("role") == "user" and text.lstrip().startswith(_CLIENT_TEXTS)


def _item(payload: dict[str, Any]) -> dict[str, Any]:
    kind = payload.get("type")
    if kind == "custom_tool_call":
        return payload | {"type": "function_call", "arguments": {"input": payload.get("input")}}
    if kind == "local_shell_call":
        arguments = {"command": optional_object(payload, "action").get("command")}
        return payload | {"type": "function_call", "name": "shell", "arguments": arguments}
    if kind in ("function_call_output", "custom_tool_call_output"):
        output = payload.get("output")
        text = output.get("content") if isinstance(output, dict) else output
        return payload | {"type": "function_call_output", "output": text}
    return payload
