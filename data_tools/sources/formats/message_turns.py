"""The turns of a run that is a list of OpenAI messages.

Calls become JSON in Qwen's form, so that one renderer serves every agent; calls in the text stay as they were written.
"""

import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import embedded_object, objects_in, optional_object, tagged
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_steps import THOUGHT_KEYS, is_request, text_of_message
from acc_megatron.data_tools.sources.formats.text_calls import calls_in_text

_TAGS = re.compile(r"<(think|tool_call|answer|tool_response)>.*?</\1>", re.DOTALL)
_TERMINAL = str.maketrans("", "", "\r\b")


def turns_of_messages(messages: list[dict[str, Any]]) -> list[Turn]:
    """One turn a message; a user message after the agent's first turn is an observation, unless it asks something."""
    turns: list[Turn] = []
    has_started, num_open = False, 0  # calls without an output
    is_structured = any(map(_num_structured_calls, messages))  # then text is never a call
    for message in messages:
        role, text = message.get("role"), observation_text(message.get("content"))
        if message.get("is_demo"):
            continue
        if role == "assistant":
            has_started = True
            turns.append(_assistant_turn(message, text))
            in_text = not is_structured and (turns[-1].tool_calls or calls_in_text(text, "plain"))
            num_open = _num_structured_calls(message) or int(bool(in_text))
        elif role == "user" and has_started and not num_open and is_request(message, text):
            turns.append(Turn(role="user", text=text))
        elif role == "tool" or (role == "user" and has_started):
            outputs = _outputs(message, text)
            turns += [Turn(role="tool", text=observation_text(part).strip("\n")) for part in outputs]
            num_open = max(0, num_open - len(outputs))
        elif role in ("system", "user"):
            turns.append(Turn(role=role, text=text))
    return turns


def _num_structured_calls(message: dict[str, Any]) -> int:
    listed, content = message.get("tool_calls"), message.get("content")
    parts = objects_in(content)
    return len(listed) if isinstance(listed, list) else sum(part.get("type") == "tool_use" for part in parts)


def observation_text(content: object) -> str:
    """The text of a string or a list of parts, without the control characters of a terminal; '' for anything else."""
    if isinstance(content, list):
        content = text_of_parts(content)
    return content.translate(_TERMINAL) if isinstance(content, str) else ""


def _assistant_turn(message: dict[str, Any], text: str) -> Turn:
    if "</think>" in text and "<think>" not in text:  # the thought spans the messages of a run in one text
        text = f"<think>{text}"
    thoughts = [observation_text(message.get(name)).strip() for name in THOUGHT_KEYS]
    thoughts += [thought.strip() for thought in tagged(text, "think")]
    answer = "\n".join(part.strip() for part in tagged(text, "answer"))
    plain = _TAGS.sub("", text).strip()
    reasoning = "\n\n".join(dict.fromkeys(thought for thought in thoughts if thought))
    parts = (plain if plain != reasoning else "", answer)  # SWE-agent writes its thought a second time as content
    return agent_turn("\n\n".join(part for part in parts if part), reasoning=reasoning, calls=_calls(message, text))


def _calls(message: dict[str, Any], text: str) -> tuple[str, ...]:
    """The calls of a message as JSON text, wherever they are written."""
    calls = [call.strip() for call in tagged(text, "tool_call")]
    listed, action, content = message.get("tool_calls"), message.get("action"), message.get("content")
    for call in listed if isinstance(listed, list) else []:
        function = (optional_object(call, "function") or call) if isinstance(call, dict) else {}
        arguments = function.get("arguments")
        calls.append(call_text(str(function.get("name")), embedded_object(arguments) or arguments))
    if isinstance(listed, str) and isinstance(action, str):  # SWE-agent's history can contain the repr of its calls
        calls.append(call_text("execute", {"command": action.strip()}))
    parts = objects_in(content)
    calls += [call_text(str(part.get("name")), part.get("input")) for part in parts if part.get("type") == "tool_use"]
    return tuple(calls)


def _outputs(message: dict[str, Any], text: str) -> list[str]:
    """The tool outputs of a message: its `tool_result` parts, otherwise its tagged responses, otherwise its text."""
    content = message.get("content")
    parts = objects_in(content)
    results = [text_of_message(part) for part in parts if part.get("type") == "tool_result"]
    return results or tagged(text, "tool_response") or [text]
