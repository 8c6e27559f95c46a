"""The turns of a run as its agent lived them, read off the raw row: thought, call, observation, and the answer.

Known are the shapes `messages` (tagged or OpenAI tool calls), `trajectory` (SWE-agent steps), `turn_history`
(InterCode) and `steps` (generic). Calls become JSON in Qwen's form, so that one renderer serves every agent.
"""

import json
import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Dropped, Trajectory
from acc_megatron.data_tools.sources.fields import (
    embedded_object,
    list_of,
    object_of,
    objects_of,
    optional_object,
    tagged,
    texts_of,
)
from acc_megatron.data_tools.sources.swe_instance import first_prompt

_TAGS = re.compile(r"<(think|tool_call|answer|tool_response)>.*?</\1>", re.DOTALL)
_EXECUTE = re.compile(r"\s*(execute|submit)(?:\[(.*)\])?\s*", re.DOTALL)
_TERMINAL = str.maketrans("", "", "\r\b")


def turns_of(value: dict[str, Any], trajectory: Trajectory) -> tuple[Turn, ...]:
    """The turns of a run that was read as `trajectory`, ending with the agent's last one.

    Raises Dropped('no_turns') for a shape without turns that we know, or without one of the agent.
    """
    if isinstance(value.get("trajectory"), list):
        turns = _swe_steps(value, trajectory)
    elif isinstance(value.get("turn_history"), dict):
        turns = _sql_steps(object_of(value, "turn_history"), trajectory)
    elif isinstance(value.get("messages"), list):
        turns = _messages(objects_of(value, "messages"))
    elif isinstance(value.get("steps"), list):
        turns = _generic_steps(objects_of(value, "steps"), trajectory)
    else:
        raise Dropped("no_turns", f"no messages, trajectory, turn_history or steps among {sorted(value)[:20]}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        raise Dropped("no_turns", "the agent takes no turn")
    return tuple(turns)


def _agent(text: str = "", *, reasoning: str = "", calls: tuple[str, ...] = ()) -> Turn:
    return Turn(role="assistant", text=text.strip(), reasoning=reasoning.strip(), tool_calls=calls, supervised=True)


def _call(name: str, arguments: object) -> str:
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def _swe_steps(value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
    history = value.get("history")
    messages = [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []
    system = next((_text(item.get("content")) for item in messages if item.get("role") == "system"), "")
    turns = [Turn(role="system", text=system)] if system else []
    turns.append(Turn(role="user", text=first_prompt(value) or trajectory.question))
    for step in objects_of(value, "trajectory"):
        command = _text(step.get("action")).strip()
        calls = (_call("execute", {"command": command}),) if command else ()
        turns.append(_agent(reasoning=_text(step.get("thought")), calls=calls))
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
        turns.append(_agent(reasoning=thought, calls=(_call("sql", {"query": query.strip()}),)))
        turns.append(Turn(role="tool", text=observation))
    return [*turns, _agent(trajectory.answer, reasoning=last_thought)]


def _generic_steps(steps: list[dict[str, Any]], trajectory: Trajectory) -> list[Turn]:
    turns = [Turn(role="user", text=trajectory.question)]
    for step in steps:
        thought = _text(step.get("thought") or step.get("reasoning"))
        turns.append(_agent(reasoning=thought, calls=(_call(str(step.get("tool", "tool")), step.get("input")),)))
        output = step.get("output")
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        turns.append(Turn(role="tool", text=_text(text)))
    return [*turns, _agent(trajectory.answer, reasoning=trajectory.reasoning)]


def _messages(messages: list[dict[str, Any]]) -> list[Turn]:
    """Messages as they are; what comes from the user after the agent's first turn is an observation."""
    turns: list[Turn] = []
    for message in messages:
        role, text = message.get("role"), _text(message.get("content"))
        has_started = any(turn.role == "assistant" for turn in turns)
        if role == "assistant":
            turns.append(_agent_message(message, text))
        elif role == "tool" or (role == "user" and has_started):
            turns += [Turn(role="tool", text=part.strip("\n")) for part in tagged(text, "tool_response") or [text]]
        elif role in ("system", "user"):
            turns.append(Turn(role=role, text=text))
    return turns


def _agent_message(message: dict[str, Any], text: str) -> Turn:
    thoughts = [_text(message.get(name)) for name in ("reasoning_content", "thought")] + tagged(text, "think")
    calls = [call.strip() for call in tagged(text, "tool_call")]
    for call in list_of(message, "tool_calls") if message.get("tool_calls") else []:
        function = optional_object(call, "function") if isinstance(call, dict) else {}
        arguments = function.get("arguments")
        calls.append(_call(str(function.get("name")), embedded_object(arguments) or arguments))
    answer = "\n".join(part.strip() for part in tagged(text, "answer"))
    plain = _TAGS.sub("", text).strip()
    reasoning = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
    return _agent("\n\n".join(part for part in (plain, answer) if part), reasoning=reasoning, calls=tuple(calls))


def _text(content: object) -> str:
    """The text of a message's content, a string or a list of parts, without terminal control characters."""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content.translate(_TERMINAL) if isinstance(content, str) else ""
