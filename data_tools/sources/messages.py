"""The messages of a run in OpenAI's form, whichever way its row spells them.

Known are `from` and `value` (ShareGPT), roles and texts as published SWE-agent runs name them (`ai`, `text`),
calls as `function_call` (OpenAI before tool calls, Qwen-Agent), lists of messages as JSON text, the items and whole
responses of OpenAI's Responses API, and the events of OpenHands' SDK.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from acc_megatron.data_tools.jsonl import BadJson, Row, parse_json
from acc_megatron.data_tools.sources.fields import embedded_object, optional_object

MESSAGE_KEYS = ("messages", "history", "trajectory", "conversation", "conversations")
_ROLES = {
    "human": "user", "gpt": "assistant", "ai": "assistant", "function_call": "assistant", "function": "tool",
    "observation": "tool",
}  # fmt: skip
_TEXT_KEYS = ("value", "text", "system_prompt")
_SDK_EVENTS = {"ActionEvent", "ObservationEvent", "MessageEvent", "SystemPromptEvent"}


def with_plain_messages(row: Row) -> Row:
    """The row with every list of messages in OpenAI's form; what is none is left as it is."""
    lists = {key: plain for key in MESSAGE_KEYS if (plain := _plain_list(row.value.get(key))) is not None}
    return replace(row, value=row.value | lists) if lists else row


def _plain_list(found: object) -> list[dict[str, Any]] | None:
    if isinstance(found, str) and found.lstrip()[:1] == "[":
        try:
            found = parse_json(found.strip().encode())
        except (BadJson, UnicodeEncodeError):
            return None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return None
    if any(item.get("kind") in _SDK_EVENTS for item in found if isinstance(item.get("kind"), str)):
        return _of_events(found)
    if any(item.get("object") == "response" or item.get("type") == "function_call_output" for item in found):
        return _of_items(found)
    return [_plain(item) for item in found] if any("role" in item or "from" in item for item in found) else None


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """One message under `role` and `content`, its call under `tool_calls`."""
    role = message.get("role", message.get("from"))
    plain = message | {"role": _ROLES.get(role, role) if isinstance(role, str) else role}
    if message.get("content") is None:
        plain["content"] = next((message[key] for key in _TEXT_KEYS if isinstance(message.get(key), str)), "")
    call = message.get("function_call")
    if role == "function_call" and (call := embedded_object(plain["content"])):
        plain["content"] = ""
    if isinstance(call, dict) and not message.get("tool_calls"):
        plain["tool_calls"] = [{"function": call}]
    return plain


def _of_items(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of OpenAI's Responses API: what the model gives between two answers is one message."""
    messages: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    given: dict[str, Any] | None = None  # the model's message that is not answered yet, its texts still in lists
    for item in _flat(items):
        kind = item.get("type")
        if kind not in ("function_call", "reasoning") and item.get("role") != "assistant":
            is_answer = kind == "function_call_output"
            answer = {"role": "tool", "tool_call_id": item.get("call_id"), "content": _text(item.get("output"))}
            messages.append(answer if is_answer else _plain(item))
            given = None
            continue
        if given is None:
            given = {"role": "assistant", "content": [], "reasoning_content": [], "tool_calls": []}
            messages.append(given)
            opened.append(given)
        if kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            given["tool_calls"].append({"id": item.get("call_id"), "function": function})
        else:
            text = _text(item.get("content")) or _text(item.get("summary"))
            given["reasoning_content" if kind == "reasoning" else "content"] += [text] if text else []
    for message in opened:
        message.update({key: "\n\n".join(message[key]) for key in ("content", "reasoning_content")})
    return messages


def _flat(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The items, a whole response (as mini-swe-agent keeps it) opened into those it gave."""
    for item in items:
        output = item.get("output")
        if item.get("object") == "response" and isinstance(output, list):
            yield from (part for part in output if isinstance(part, dict))
        else:
            yield item


def _of_events(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events of OpenHands' SDK: actions of one response are one message, answers name their call."""
    messages: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []  # of the last message, when that is an action's
    response = None
    for event in events:
        kind = event.get("kind")
        if kind == "SystemPromptEvent":
            messages.append({"role": "system", "content": _text(event.get("system_prompt"))})
        elif kind == "MessageEvent":
            message = optional_object(event, "llm_message")
            roles = {"role": "assistant" if event.get("source") == "agent" else "user"}
            messages.append(roles | message | {"content": _text(message.get("content"))})
        elif kind == "ActionEvent":
            if not (response and event.get("llm_response_id") == response):
                response, calls = event.get("llm_response_id"), []
                thoughts = {"content": _text(event.get("thought")), "reasoning_content": event.get("reasoning_content")}
                messages.append({"role": "assistant", "tool_calls": calls} | thoughts)
            calls.append(_call(event))
        elif kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent"):
            given = optional_object(event, "observation")
            texts = (given.get("content"), given.get("output"), event.get("error"), event.get("rejection_reason"))
            output = next((text for found in texts if (text := _text(found))), "")
            messages.append({"role": "tool", "tool_call_id": event.get("tool_call_id"), "content": output})
    return messages


def _call(event: dict[str, Any]) -> dict[str, Any]:
    """The call as the model made it, where the event keeps that, else the action with its arguments."""
    made, action = optional_object(event, "tool_call"), optional_object(event, "action")
    arguments = made.get("arguments") or {name: value for name, value in action.items() if name != "kind"}
    name = event.get("tool_name") or made.get("name")
    return {"id": event.get("tool_call_id"), "function": {"name": name, "arguments": arguments}}


def _text(content: object) -> str:
    """A text, the text of a part, or those of a list of parts."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))
