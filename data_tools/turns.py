"""The turns of a run as its agent lived them, read off the raw row: thought, call, observation, and the answer.

Known are all layouts that the readers in `sources` recognise: messages (tagged, OpenAI or Anthropic calls, under any of
their keys), SWE-agent's `trajectory`, OpenHands events, InterCode's `turn_history` and generic `steps`. Calls become
JSON in Qwen's form, so that one renderer serves every agent; calls that are written as text stay as they were written.
"""

import re
from collections.abc import Sequence
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.event_turns import event_turns
from acc_megatron.data_tools.schema import Dropped, Trajectory
from acc_megatron.data_tools.sources.fields import (
    embedded_object,
    object_of,
    objects_of,
    optional_object,
    tagged,
    texts_of,
)
from acc_megatron.data_tools.sources.swe_instance import first_prompt
from acc_megatron.data_tools.sources.swe_steps import events_of
from acc_megatron.data_tools.sources.transcript import THOUGHT_KEYS, Step, message_key, text_of_message, transcript_of

_TAGS = re.compile(r"<(think|tool_call|answer|tool_response)>.*?</\1>", re.DOTALL)
_EXECUTE = re.compile(r"\s*(execute|submit)(?:\[(.*)\])?\s*", re.DOTALL)
_TERMINAL = str.maketrans("", "", "\r\b")


def turns_of(value: dict[str, Any], trajectory: Trajectory) -> tuple[Turn, ...]:
    """The turns of a run that was read as `trajectory`, ending with the agent's last one.

    Raises Dropped('no_turns') for a shape without turns that we know, or without one of the agent.
    """
    events, key = events_of(value), message_key(value)
    if events is not None:
        turns = event_turns(events, trajectory.question)
    elif isinstance(value.get("trajectory"), list) and key != "trajectory":
        turns = _swe_steps(value, trajectory)
    elif isinstance(value.get("turn_history"), dict):
        turns = _sql_steps(object_of(value, "turn_history"), trajectory)
    elif isinstance(value.get("messages"), list) or key:
        turns = _messages(objects_of(value, key or "messages"))
    elif isinstance(value.get("steps"), list):
        turns = _generic_steps(transcript_of(value).steps, trajectory)
    else:
        raise Dropped("no_turns", f"no messages, events, trajectory, turn_history or steps among {sorted(value)[:20]}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        raise Dropped("no_turns", "the agent takes no turn")
    return tuple(turns)


def _swe_steps(value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
    history = value.get("history")
    messages = [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []
    system = next((_text(item.get("content")) for item in messages if item.get("role") == "system"), "")
    turns = [Turn(role="system", text=system)] if system else []
    turns.append(Turn(role="user", text=first_prompt(value) or trajectory.question))
    for step in objects_of(value, "trajectory"):
        command = _text(step.get("action")).strip()
        calls = (call_text("execute", {"command": command}),) if command else ()
        turns.append(agent_turn(reasoning=_text(step.get("thought")), calls=calls))
        turns.append(Turn(role="tool", text=_text(step.get("observation"))))
    return turns


def _sql_steps(history: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
    actions, observations = texts_of(history, "actions"), texts_of(history, "observations")
    thoughts = texts_of(history, "thoughts") if history.get("thoughts") is not None else []
    turns, last_thought = [Turn(role="user", text=trajectory.question)], ""
    for number, (action, observation) in enumerate(zip(actions, observations, strict=False)):
        thought = thoughts[number] if number < len(thoughts) else ""
        match = _EXECUTE.fullmatch(action)
        if match and match[1] == "submit":
            last_thought = thought
            break
        query = match[2] if match and match[2] is not None else action
        turns.append(agent_turn(reasoning=thought, calls=(call_text("sql", {"query": query.strip()}),)))
        turns.append(Turn(role="tool", text=observation))
    return [*turns, agent_turn(trajectory.answer, reasoning=last_thought)]


def _generic_steps(steps: Sequence[Step], trajectory: Trajectory) -> list[Turn]:
    turns = [Turn(role="user", text=trajectory.question)]
    for step in steps:
        turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool or "tool", step.arguments),)))
        turns.append(Turn(role="tool", text=_text(step.output)))
    return [*turns, agent_turn(trajectory.answer, reasoning=trajectory.reasoning)]


def _messages(messages: list[dict[str, Any]]) -> list[Turn]:
    """Messages as they are; what comes from the user after the agent's first turn is an observation."""
    turns: list[Turn] = []
    has_started = False
    for message in messages:
        role, text = message.get("role"), _text(message.get("content"))
        if message.get("is_demo"):
            continue
        if role == "assistant":
            has_started = True
            turns.append(_agent_message(message, text))
        elif role == "tool" or (role == "user" and has_started):
            turns += [Turn(role="tool", text=_text(part).strip("\n")) for part in _answers(message, text)]
        elif role in ("system", "user"):
            turns.append(Turn(role=role, text=text))
    return turns


def _agent_message(message: dict[str, Any], text: str) -> Turn:
    thoughts = [_text(message.get(name)).strip() for name in THOUGHT_KEYS]
    thoughts += [thought.strip() for thought in tagged(text, "think")]
    calls = [call.strip() for call in tagged(text, "tool_call")]
    listed, action = message.get("tool_calls"), message.get("action")
    for call in listed if isinstance(listed, list) else []:
        function = (optional_object(call, "function") or call) if isinstance(call, dict) else {}
        arguments = function.get("arguments")
        calls.append(call_text(str(function.get("name")), embedded_object(arguments) or arguments))
    if isinstance(listed, str) and isinstance(action, str):  # SWE-agent's history may hold Python's text of its calls
        calls.append(call_text("execute", {"command": action.strip()}))
    listed = content if isinstance(content := message.get("content"), list) else []
    for part in (part for part in listed if isinstance(part, dict) and part.get("type") == "tool_use"):
        calls.append(call_text(str(part.get("name")), part.get("input")))
    answer = "\n".join(part.strip() for part in tagged(text, "answer"))
    plain = _TAGS.sub("", text).strip()
    reasoning = "\n\n".join(dict.fromkeys(thought for thought in thoughts if thought))
    parts = (plain if plain != reasoning else "", answer)  # SWE-agent writes a thought twice
    return agent_turn("\n\n".join(part for part in parts if part), reasoning=reasoning, calls=tuple(calls))


def _answers(message: dict[str, Any], text: str) -> list[str]:
    """The tool answers of a message: its `tool_result` parts, its tagged responses, or all of it."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    results = [text_of_message(part) for part in parts if part.get("type") == "tool_result"]
    return results or tagged(text, "tool_response") or [text]


def _text(content: object) -> str:
    """The text of a message's content, a string or a list of parts, without terminal control characters."""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content.translate(_TERMINAL) if isinstance(content, str) else ""
