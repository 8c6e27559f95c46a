"""Where rows keep their messages: under other names, in a prompt and its completion, or in an object of the row."""

from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_list
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS, Message

_OTHER_KEYS = (
    "chat", "dialog", "dialogue", "turns", "trace", "traj", "rollout", "transcript", "chat_history", "events", "log",
    "adk_events", "message_history", "messages_history", "input_messages", "session",
)  # fmt: skip
_PROMPT_KEYS, _REPLY_KEYS = ("prompt", "input"), ("completion", "response", "output", "chosen")
_OBJECTS = (
    "data", "trace", "state", "request", "input", "output", "outputs", "inputs", "result", "run", "sample",
    "conversation", "trajectory", "main_agent_message_history",
)  # fmt: skip
_INNER_KEYS = (*MESSAGE_KEYS, "message_history")
_ROLE_KEYS = {"role", "from", "type", "kind", "action"}


def with_messages(value: dict[str, Any]) -> dict[str, Any]:
    """The row with its messages under `messages`, if none of MESSAGE_KEYS has a list and another place has one."""
    if any(isinstance(value.get(key), list | str) for key in MESSAGE_KEYS):
        return value
    found = next((messages for messages in _candidates(value) if messages), None)
    return value if found is None else value | {"messages": found}


def _candidates(value: dict[str, Any]) -> Iterator[list[Message]]:
    for prompt in (_messages(value.get(key)) for key in _PROMPT_KEYS):
        replies = (_reply(value.get(key)) for key in _REPLY_KEYS) if prompt else ()
        yield from (prompt + reply for reply in replies if reply)
    for place in (value, value.get("response")):  # of the Responses API
        if isinstance(place, dict) and (items := _messages(place.get("output"))):
            asked = place.get("input", value.get("input"))
            yield [{"role": "user", "content": asked}, *items] if isinstance(asked, str) else items
    yield from (_messages(value.get(key)) for key in _OTHER_KEYS)
    for place in (found for key in _OBJECTS if isinstance(found := value.get(key), dict)):
        for messages in (_messages(place.get(key)) for key in _INNER_KEYS):
            yield messages + _reply_of_api(value.get("response")) if messages else []


def _messages(found: object) -> list[Message]:
    """A list of objects that say who speaks, or the text of one; [] for anything else."""
    items = embedded_list(found)
    if items is None or not all(isinstance(item, dict) for item in items):
        return []
    return items if any(not _ROLE_KEYS.isdisjoint(item) for item in items) else []


def _reply(found: object) -> list[Message]:
    """The messages of a reply, which can also be one message or its text."""
    if isinstance(found, str) and found.strip():
        return [{"role": "assistant", "content": found}]
    return [found] if isinstance(found, dict) and "role" in found else _messages(found)


def _reply_of_api(response: object) -> list[Message]:
    """The message of a chat completion."""
    choices = response.get("choices") if isinstance(response, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return [message] if isinstance(message, dict) and "role" in message else []
