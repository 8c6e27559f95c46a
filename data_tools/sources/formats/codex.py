"""Session logs ("rollouts") of Codex: the items of the Responses API in envelopes, among events of the client."""

from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.formats.responses_items import ResponsesItems

_CLIENT_TEXTS = ("<environment_context>", "<user_instructions>", "<permissions", "# AGENTS.md instructions")


class Codex(MessageLog):
    """Events of type `response_item`; calls of custom tools and of the local shell are calls like any other.

    The client adds messages of the user: those that no event `user_message` has are left out.
    """

    name = "Codex session"

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is the envelope of an item of the Responses API."""
        return any(item.get("type") == "response_item" and isinstance(item.get("payload"), dict) for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The items as OpenAI messages."""
        payloads = [(item.get("type"), optional_object(item, "payload")) for item in items]
        asked = {
            str(payload.get("message")).strip()
            for kind, payload in payloads
            if kind == "event_msg" and payload.get("type") == "user_message"
        }
        found = [payload for kind, payload in payloads if kind == "response_item"]
        return ResponsesItems().messages([payload for payload in found if not _is_of_client(payload, asked)])


def _is_of_client(payload: dict[str, Any], asked: set[str]) -> bool:
    if payload.get("role") != "user":
        return False
    content = payload.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = {text_of_parts(part).strip() for part in (content, *parts)}
    return (bool(asked) and asked.isdisjoint(texts)) or any(text.startswith(_CLIENT_TEXTS) for text in texts)
