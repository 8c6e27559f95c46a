"""One agent run as steps, whichever way its row writes them down.

Read are `messages` (or another of MESSAGE_KEYS) with OpenAI `tool_calls` and `tool` answers, with Anthropic content
parts, or with calls inside the text (see text_calls), and generic `steps` of {tool, input, output}. An answer belongs
to the call whose id it names, else to the first call still open.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.sources.fields import embedded_object, objects_of, tagged
from acc_megatron.data_tools.sources.messages import MESSAGE_KEYS
from acc_megatron.data_tools.sources.text_calls import calls_in_text, text_without_calls

_TEXT_PARTS = (None, "text", "input_text", "output_text")
_TOOL_KEYS = ("tool", "tool_name", "name", "action")
_INPUT_KEYS = ("input", "tool_input", "arguments", "args", "action_input")
_OUTPUT_KEYS = ("output", "observation", "result", "response")
THOUGHT_KEYS = ("thought", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tool call with what it gave; a tool answer that no call asked for has the tool ''."""

    thought: str = ""
    tool: str = ""
    arguments: dict[str, Any]
    output: str = ""

    def argument(self, *names: str) -> str:
        """The first of these arguments that is text, else the only argument if that is text, else ''."""
        values = [self.arguments.get(name) for name in names]
        values += self.arguments.values() if len(self.arguments) == 1 else []
        return next((value for value in values if isinstance(value, str)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A run: the last message before the agent's first, its steps, and its closing text ('' when it has none)."""

    prompt: str
    steps: tuple[Step, ...]
    final: str

    def thoughts(self) -> str:
        """What the agent thought before its calls, blank line between."""
        return "\n\n".join(step.thought.strip() for step in self.steps if step.thought.strip())


def has_transcript(value: dict[str, Any]) -> bool:
    """Whether a row holds messages or generic steps, read by `transcript_of`."""
    return message_key(value) is not None or _is_objects(value.get("steps"))


def transcript_of(value: dict[str, Any], *, plain_fences: bool = False) -> Transcript:
    """The run of a row; with `plain_fences` a block of code without a language is a call too. Raises
    Dropped('malformed').
    """
    key = message_key(value)
    return _of_messages(objects_of(value, key), plain_fences) if key else _of_steps(value)


def tool_names(value: dict[str, Any]) -> set[str]:
    """The names of the tools that a row calls, read without judging it; at most 50."""
    names: set[str] = set()
    for item in _items(value):
        names.update(str(call[1]) for call in _calls(item))
        names.update(str(item[key]) for key in _TOOL_KEYS if "role" not in item and isinstance(item.get(key), str))
        if len(names) >= 50:
            break
    return names


def text_of_message(message: dict[str, Any]) -> str:
    """The text of a message whose content is text, parts, or nothing (as beside tool calls)."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS]
        return "\n".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise Dropped("malformed", f"a message's content must be text, got {type(content).__name__}")
    return content


def message_key(value: dict[str, Any]) -> str | None:
    """The key of the messages: a list that holds at least one object with a role."""
    for key in MESSAGE_KEYS:
        if _is_objects(found := value.get(key)) and any("role" in item for item in found):
            return key
    return None


def _is_objects(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _items(value: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = value[message_key(value) or "steps"] if has_transcript(value) else []
    return found


def _of_messages(messages: list[dict[str, Any]], plain_fences: bool) -> Transcript:
    prompt, final, has_begun = "", "", False
    steps: list[Step] = []
    open_ids: dict[int, str] = {}  # call id by the number of its step
    for message in messages:
        role, text = message.get("role"), text_of_message(message)
        if not isinstance(role, str):
            raise Dropped("malformed", f"a message's role must be a string, got {role!r:.80}")
        if message.get("is_demo"):
            continue
        if role == "assistant":
            has_begun, final = True, text
            calls = list(_calls(message, plain_fences=plain_fences))
            thought = _thought(message, text, bool(calls), plain_fences)
            for i, (call_id, name, arguments) in enumerate(calls):
                open_ids[len(steps)] = call_id
                steps.append(Step(thought="" if i else thought, tool=name, arguments=arguments))
            final = "" if calls else text
        elif not has_begun:
            prompt = text if role == "user" or not prompt else prompt
        else:
            for answered_id, output in _answers(message, text):
                _answer(steps, open_ids, answered_id, output)
            final = ""
    return Transcript(prompt=prompt, steps=tuple(steps), final=final)


def _answer(steps: list[Step], open_ids: dict[int, str], answered_id: str, output: str) -> None:
    """Give an output to the call it names, else to the first one open, else to none."""
    by_id = (i for i, call_id in open_ids.items() if answered_id and call_id == answered_id)
    index = next(by_id, next(iter(open_ids), None))
    if index is None:
        steps.append(Step(arguments={}, output=output))
    else:
        del open_ids[index]
        steps[index] = replace(steps[index], output=output)


def _answers(message: dict[str, Any], text: str) -> Iterator[tuple[str, str]]:
    """(call id, output) of every tool answer in a message of the user's or a tool's side."""
    content = message.get("content")
    results = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    results = [part for part in results if part.get("type") == "tool_result"]
    if results:
        yield from ((str(part.get("tool_use_id", "")), text_of_message(part)) for part in results)
    elif responses := tagged(text, "tool_response"):
        yield from (("", response) for response in responses)
    else:
        ids = message.get("tool_call_ids")  # SWE-agent's history
        named = message.get("tool_call_id") or (ids[0] if isinstance(ids, list) and ids else "")
        yield str(named), text.removeprefix("Observation:")


def _calls(message: dict[str, Any], *, plain_fences: bool = False) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(id, tool, arguments) of every call in an assistant message."""
    listed, content = message.get("tool_calls"), message.get("content")
    if isinstance(listed, list) and listed:
        for call in (call for call in listed if isinstance(call, dict)):
            function = call.get("function")
            function = function if isinstance(function, dict) else call
            yield str(call.get("id", "")), str(function.get("name", "")), _arguments(function.get("arguments"))
    elif isinstance(content, list):
        for part in (part for part in content if isinstance(part, dict) and part.get("type") == "tool_use"):
            yield str(part.get("id", "")), str(part.get("name", "")), _arguments(part.get("input"))
    elif message.get("role") == "assistant" and isinstance(content, str):
        yield from (("", name, arguments) for name, arguments in calls_in_text(content, plain_fences))


def _thought(message: dict[str, Any], text: str, has_calls: bool, plain_fences: bool) -> str:
    """Reasoning kept apart, and the text beside the calls; the closing text is no thought."""
    apart = [message.get(key) for key in THOUGHT_KEYS]
    parts = [part for part in apart if isinstance(part, str) and part.strip()]
    return "\n\n".join(dict.fromkeys([*parts, text_without_calls(text, plain_fences)] if has_calls else parts))


def _of_steps(value: dict[str, Any]) -> Transcript:
    steps = []
    for item in objects_of(value, "steps"):
        name, given, output, thought = (
            next((item[key] for key in keys if item.get(key) is not None), "")
            for keys in (_TOOL_KEYS, _INPUT_KEYS, _OUTPUT_KEYS, THOUGHT_KEYS)
        )
        if not isinstance(name, str) or not isinstance(thought, str):
            raise Dropped("malformed", "a step's tool and thought must be strings")
        steps.append(Step(thought=thought, tool=name, arguments=_arguments(given), output=_as_text(output)))
    question = value.get("question")
    return Transcript(prompt=question if isinstance(question, str) else "", steps=tuple(steps), final="")


def _arguments(value: object) -> dict[str, Any]:
    """An object, JSON text of one, or any other value under the name `input`."""
    found = embedded_object(value)
    return found or ({} if value in (None, "", {}) else {"input": value})


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
