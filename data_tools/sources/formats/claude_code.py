"""Session logs of Claude Code: events with a `message` of Anthropic's API, one for each part of a reply."""

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog


class ClaudeCode(MessageLog):
    """Events of one reply become one assistant message; events of side chains and of the client are left out."""

    name = "Claude Code session"
    item_keys = frozenset(("message",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is an event of the user or the agent."""
        return any(_is_message(item) for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The messages of the main conversation in OpenAI's form."""
        messages: list[Message] = []
        reply = None  # the id of the reply that the last message belongs to
        for item in items:
            if not _is_message(item) or item.get("isSidechain") or item.get("isMeta"):
                continue
            message = optional_object(item, "message")
            parts = _parts(message)
            if item["type"] == "assistant" and reply is not None and message.get("id") == reply:
                messages[-1]["content"] += parts
            else:
                messages.append({"role": item["type"], "content": parts})
            reply = message.get("id") if item["type"] == "assistant" else None
        return [openai_message(message) for message in messages]


def _is_message(item: Message) -> bool:
    is_event = item.get("type") in ("user", "assistant") and "role" not in item
    return is_event and isinstance(item.get("message"), dict) and ("uuid" in item or "sessionId" in item)


def _parts(message: Message) -> list[object]:
    content = message.get("content")
    return list(content) if isinstance(content, list) else [{"type": "text", "text": content}]
