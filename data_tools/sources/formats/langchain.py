"""LangChain's messages, which state their role as `type`, also inside `data` or the `kwargs` of a constructor."""

from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_ROLES = {
    "human": "user", "HumanMessage": "user", "ai": "assistant", "AIMessage": "assistant",
    "AIMessageChunk": "assistant", "system": "system", "SystemMessage": "system", "tool": "tool",
    "ToolMessage": "tool", "function": "tool", "FunctionMessage": "tool",
}  # fmt: skip


class LangChain(MessageLog):
    """Messages whose `type` is human, ai, tool or system."""

    name = "LangChain messages"
    item_keys = frozenset(("type",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether every item has a type of LangChain, and none has a role."""
        return all(_role(item) and "role" not in item for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """Each message in OpenAI's form; calls of the provider's own form are read if LangChain's are absent."""
        return [openai_message(_message(item)) for item in items]


def _role(item: Message) -> str | None:
    kind: Any = item.get("type")
    if kind == "constructor" and isinstance(item.get("id"), list) and item["id"]:
        kind = item["id"][-1]
    return _ROLES.get(kind) if isinstance(kind, str) and ("content" in _fields(item)) else None


def _fields(item: Message) -> Message:
    return optional_object(item, "kwargs") or optional_object(item, "data") or item


def _message(item: Message) -> Message:
    fields = _fields(item)
    more = optional_object(fields, "additional_kwargs")
    calls = fields.get("tool_calls") or more.get("tool_calls")
    found = {"role": _role(item), "content": fields.get("content"), "tool_calls": calls}
    named = {key: fields[key] for key in ("name", "tool_call_id") if isinstance(fields.get(key), str)}
    reasoning = {key: more[key] for key in ("reasoning_content",) if isinstance(more.get(key), str)}
    call = {"function_call": more["function_call"]} if isinstance(more.get("function_call"), dict) else {}
    status = {"status": fields["status"]} if isinstance(fields.get("status"), str) else {}
    return found | named | reasoning | call | status
