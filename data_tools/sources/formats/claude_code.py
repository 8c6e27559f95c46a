"""Session logs of Claude Code: events with a `message` of Anthropic's API, one for each part of a reply."""

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_COMMANDS = ("<command-name>", "<local-command-")


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
        found = [item for item in _without_undone(items) if _is_message(item) and not _is_of_client(item)]
        main = [item for item in found if not item.get("isSidechain")]
        for item in main or found:  # the log of a subagent is a side chain as a whole
            message = optional_object(item, "message")
            parts = _parts(message)
            if item["type"] == "assistant" and reply is not None and message.get("id") == reply:
                content = messages[-1]["content"]
                content += [part for part in parts if part not in content]  # a reply can be logged again as it grows
            else:
                messages.append({"role": item["type"], "content": parts})
            reply = message.get("id") if item["type"] == "assistant" else None
        return [openai_message(message) for message in messages]


def _without_undone(items: list[Message]) -> list[Message]:
    """The events without those after a request that the user took back by another one at the same place."""
    last = {item["parentUuid"]: item.get("uuid") for item in items if item.get("parentUuid") and _is_request(item)}
    undone: set[object] = set()
    kept = []
    for item in items:
        parent = item.get("parentUuid")
        if parent in undone or (_is_request(item) and last.get(parent, item.get("uuid")) != item.get("uuid")):
            undone.add(item.get("uuid"))
        else:
            kept.append(item)
    return kept


def _is_request(item: Message) -> bool:
    """Whether the user wrote a message, and not a tool."""
    parts = _parts(optional_object(item, "message")) if item.get("type") == "user" and _is_message(item) else []
    return any(isinstance(part, dict) and part.get("type") == "text" for part in parts)


def _is_of_client(item: Message) -> bool:
    """Whether the client made a message: notes, commands of its own, summaries of what stands above, and errors."""
    message = optional_object(item, "message")
    is_marked = any(item.get(mark) for mark in ("isMeta", "isCompactSummary", "isApiErrorMessage"))
    is_command = item["type"] == "user" and text_of_parts(_parts(message)).lstrip().startswith(_COMMANDS)
    return is_marked or is_command or message.get("model") == "<synthetic>"


def _is_message(item: Message) -> bool:
    is_event = item.get("type") in ("user", "assistant") and "role" not in item
    return is_event and isinstance(item.get("message"), dict) and ("uuid" in item or "sessionId" in item)


def _parts(message: Message) -> list[object]:
    content = message.get("content")
    return list(content) if isinstance(content, list) else [{"type": "text", "text": content}]
