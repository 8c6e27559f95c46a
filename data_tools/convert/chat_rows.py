"""Chats that people publish for fine-tuning, as turns with the loss on the assistant's.

OpenAI messages (also under the keys of the published ACC dataset), ShareGPT, prompt and completion, Alpaca, Dolly, and
the query and response of ms-swift. A row may define its tools under `tools`, and its system prompt under `system`.
Reasoning is read from `reasoning_content`, from parts, or from `<think>...</think>`. Calls are read from `tool_calls`,
from parts, or from `<tool_call>` at the end of a text. A tool output can be a part of a user message (Anthropic).
"""

import json
from dataclasses import dataclass, replace
from typing import Any, cast

from acc_megatron.data_tools.conversation import Role, Turn, call_text
from acc_megatron.data_tools.convert.tool_definitions import TOOLS_RULE, parsed, tools_of_row, with_tools
from acc_megatron.data_tools.rows.fields import embedded_list, tagged
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.run_text import RunText
from acc_megatron.errors import DataError, Dropped

MESSAGE_KEYS = ("dialogs", "input_messages", "prompt", "messages", "conversations", "conversation")
LAYOUTS = (
    f"messages are a list under one of {', '.join(MESSAGE_KEYS)}, a completion has 'prompt' and 'completion', an "
    "instruction has 'instruction', 'query' or 'prompt' and 'output' or 'response'"
)
_ROLES = ("system", "user", "assistant", "tool")
_LOSS_KEYS = ("weight", "train", "loss", "loss_weight", "train_on_turn")  # false or 0 for a message without loss
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_SYSTEM_KEYS = ("system", "system_prompt")
_QUESTION_KEYS, _INPUT_KEYS, _OUTPUT_KEYS = (
    ("instruction", "query", "prompt", "question"),
    ("input", "context"),
    ("output", "response"),
)
_RUN_KEYS = ("steps", "trajectory", "turn_history", "intermediate_steps")  # of rows that `compile` reads
_PAIRS = (("human", "assistant"), ("input", "output"))  # the keys of one exchange
_MEDIA_KEYS = ("images", "image", "videos", "video", "audios", "audio")
_TEXT_PARTS, _THINKING_PARTS = (None, "text", "input_text", "output_text"), ("thinking", "reasoning")
_CALL_PARTS = ("tool_use", "tool_call")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """The turns of a row, and the keys of the row that they were read from."""

    turns: tuple[Turn, ...]
    keys: frozenset[str]

    @property
    def has_reasoning(self) -> bool:
        """Whether any supervised turn has reasoning."""
        return any(turn.reasoning for turn in self.turns if turn.supervised)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Messages:
    """Messages as the row has them; the first `num_given` are the prompt, without loss."""

    messages: list[Any]
    keys: frozenset[str]
    num_given: int = 0


def read_chat(value: dict[str, Any], where: str) -> Chat | None:
    """The chat of a row, or None if it has another shape.

    Raises DataError with `where` for a chat with a mistake, and Dropped('undesirable_reply') for one that its row
    labels as such (KTO).
    """
    found = _messages_of(value)
    if found is None:
        return None
    if "chosen" in value and "completion" not in value:
        raise DataError(f"{where}: a row of preferences; leave out 'chosen', or make it the 'completion' of 'prompt'")
    if media := [key for key in _MEDIA_KEYS if value.get(key)]:
        raise DataError(f"{where}: the row is about {media[0]!r}, and only text is read")
    if value.get("label") is False:
        raise Dropped("undesirable_reply", "the row labels its reply as undesirable: 'label' is false")
    turns = [
        replace(turn, supervised=turn.supervised and number > found.num_given)
        for number, message in enumerate(found.messages, start=1)
        for turn in _turns(message, f"{where}: message {number}")
    ]
    _check_roles(turns, where)
    keys = found.keys
    system_key = next((key for key in _SYSTEM_KEYS if isinstance(value.get(key), str) and value[key].strip()), None)
    if system_key and turns[0].role != "system":
        turns, keys = [Turn(role="system", text=value[system_key]), *turns], keys | {system_key}
    tools = tools_of_row(value)
    if tools is None:
        raise DataError(f"{where}: {TOOLS_RULE}")
    return Chat(turns=with_tools(turns, tools), keys=keys | {"tools"} if tools else keys)


def _messages_of(value: dict[str, Any]) -> _Messages | None:
    prompt, completion = value.get("prompt"), value.get("completion")
    if isinstance(prompt, str | list) and isinstance(completion, str | list):
        opening = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        reply = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
        return _Messages(messages=[*opening, *reply], keys=frozenset(("prompt", "completion")), num_given=len(opening))
    for key in MESSAGE_KEYS:
        found = embedded_list(value.get(key))
        if found and (isinstance(value[key], list) or all(isinstance(item, dict) for item in found)):
            return _Messages(messages=_of_pairs(found) or found, keys=frozenset((key,)))
    return _instruction(value)


def _of_pairs(items: list[Any]) -> list[Any]:
    """The messages of a list of exchanges, the first of which can have a system prompt; [] for any other list."""
    pairs = [
        next((pair for pair in _PAIRS if isinstance(item, dict) and item.keys() >= {*pair}), None) for item in items
    ]
    if not all(pairs):
        return []
    system = items[0].get("system")
    opening = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return opening + _exchanges([[item[name] for name in pair or ()] for item, pair in zip(items, pairs, strict=True)])


def _instruction(value: dict[str, Any]) -> _Messages | None:
    """A question and its answer; rows of LLaMA-Factory and ms-swift also have a `history` of such pairs."""
    question_key, output_key, input_key = (
        next((key for key in keys if isinstance(value.get(key), str)), None)
        for keys in (_QUESTION_KEYS, _OUTPUT_KEYS, _INPUT_KEYS)
    )
    is_run = any(key in value for key in _RUN_KEYS) or RunText().recognises(value)
    if question_key is None or output_key is None or is_run:
        return None
    question, addition = value[question_key], value[input_key] if input_key else ""
    found = value.get("history")
    history: list[Any] = found if isinstance(found, list) else []
    messages = _exchanges(
        [*history, [f"{question}\n\n{addition}" if addition.strip() else question, value[output_key]]]
    )
    keys = {question_key, "history", output_key, *((input_key,) if input_key else ())}
    return _Messages(messages=messages, keys=frozenset(keys))


def _exchanges(pairs: list[Any]) -> list[Any]:
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair if isinstance(pair, list) else [None], strict=False)
    ]


def _turns(message: object, where: str) -> list[Turn]:
    """The turns of a message: one, after one for each tool output that is a part of a user message."""
    if not isinstance(message, dict):
        raise DataError(f"{where} must be an object with a role and text, got {type(message).__name__}")
    plain = openai_message(message)
    role = "system" if plain["role"] == "developer" else plain["role"]
    if role not in _ROLES:
        raise DataError(f"{where}: the role must be one of {', '.join(_ROLES)}, got {role!r:.80}")
    content = plain.get("content")
    results = [part for part in content if _is_part(part, ("tool_result",))] if isinstance(content, list) else []
    outputs = [Turn(role="tool", text=_text(part.get("content"), where)) for part in results]
    if isinstance(content, list):
        plain |= _parts(content, plain)
    if outputs and not plain["content"]:
        return outputs
    text = _text(plain["content"], where)
    if role == "assistant":
        return [_reply(plain, text, where)]
    if role == "user" and not text.strip():
        raise DataError(f"{where}: the user message is empty")
    if role == "user" and (responses := _tool_responses(text)):
        return [Turn(role="tool", text=response) for response in responses]
    return [*outputs, Turn(role=cast(Role, role), text=_tool_output(text) if role == "tool" else text)]


def _parts(content: list[Any], message: dict[str, Any]) -> dict[str, Any]:
    """The text parts of a message as its content, its calls, and its reasoning; LLaMA-Factory writes `value`."""
    calls = [part for part in content if _is_part(part, _CALL_PARTS)]
    thoughts = [part for part in content if _is_part(part, _THINKING_PARTS)]
    others = [part for part in content if part not in calls and part not in thoughts]
    stated = (part.get("thinking") or part.get("text") or part.get("value") for part in thoughts)
    reasoning = "\n\n".join(text for text in stated if isinstance(text, str))
    made = [
        {
            "function": {"name": part["name"], "arguments": part.get("input")}
            if "name" in part
            else parsed(part["value"])
        }
        for part in calls
        if "name" in part or "value" in part
    ]
    found = {"content": [part for part in others if not _is_part(part, ("tool_result",))]}
    listed = message.get("tool_calls") or made
    return found | {"tool_calls": listed, "reasoning_content": message.get("reasoning_content") or reasoning}


def _is_part(part: object, kinds: tuple[str | None, ...]) -> bool:
    return isinstance(part, dict) and part.get("type") in kinds


def _text(content: object, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text", part.get("value")) if _is_part(part, _TEXT_PARTS) else None for part in parts]
    if not isinstance(content, list) or not all(isinstance(text, str) for text in texts):
        kinds = sorted({str(part.get("type")) if isinstance(part, dict) else type(part).__name__ for part in parts})
        found = f"parts of type {', '.join(kinds)}" if parts else type(content).__name__
        raise DataError(f"{where}: the content must be text or a list of text parts, got {found}")
    return "\n".join(str(text) for text in texts)


def _tool_output(text: str) -> str:
    """The output of a tool without the tags that Hermes writes around it, because the template adds them."""
    parts = _tool_responses(text)
    return parts[0] if len(parts) == 1 else text


def _tool_responses(text: str) -> list[str]:
    """The outputs of a text that consists of `<tool_response>` tags, as Qwen's template writes them; [] for others."""
    parts = tagged(text, "tool_response")
    written = "".join(f"<tool_response>{part}</tool_response>" for part in parts)
    return [part.strip("\n") for part in parts] if "".join(text.split()) == "".join(written.split()) else []


def _reply(message: dict[str, Any], text: str, where: str) -> Turn:
    """An assistant message. The loss covers it unless one of _LOSS_KEYS says otherwise."""
    separate = next((message[key] for key in _THOUGHT_KEYS if message.get(key)), None)
    if isinstance(separate, str) and "</think>" not in text:  # as OpenAI-compatible servers write it
        text = f"{separate}</think>{text}"
    reasoning, end, answer = text.partition("</think>")
    if not end and "<think>" not in text:
        reasoning, answer = "", text
    elif not end or "</think>" in answer:
        raise DataError(f"{where}: the assistant text must be an answer after at most one '<think>...</think>'")
    answer, calls = _text_calls(answer)
    calls += _listed_calls(message, where)
    if not answer.strip() and not calls:
        raise DataError(f"{where}: the assistant text has no answer")
    return Turn(
        role="assistant",
        text=answer,
        reasoning=reasoning.removeprefix("<think>").strip("\n") if end else "",
        tool_calls=calls,
        supervised=all(message.get(key) is None or bool(message[key]) for key in _LOSS_KEYS),
    )


def _text_calls(text: str) -> tuple[str, tuple[str, ...]]:
    """The calls at the end of a text, and the text before them; other texts stay as they are."""
    start = text.find("<tool_call>")
    calls = tagged(text[start:], "tool_call") if start >= 0 else []
    rest = "".join(text[start:].split()) if calls else ""
    if not calls or rest != "".join(f"<tool_call>{''.join(call.split())}</tool_call>" for call in calls):
        return text, ()
    return text[:start].rstrip("\n"), tuple(call.strip() for call in calls)


def _listed_calls(message: dict[str, Any], where: str) -> tuple[str, ...]:
    """The calls of `tool_calls`. As in the official templates, arguments that are a text are written as they are."""
    listed = message.get("tool_calls") or []
    calls = []
    for call in listed if isinstance(listed, list) else [None]:
        function = call.get("function", call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        arguments = function.get("arguments", {}) if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{where}: each of 'tool_calls' must be an object with a 'name'")
        is_json_text = isinstance(arguments, str) and isinstance(parsed(arguments), dict)
        calls.append(
            f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
            if is_json_text
            else call_text(name, arguments)
        )
    return tuple(calls)


def _check_roles(turns: list[Turn], where: str) -> None:
    roles = [turn.role for turn in turns]
    if "assistant" not in roles or "user" not in roles[: roles.index("assistant")]:
        raise DataError(f"{where}: a chat needs a user message and then an assistant message; got roles {roles}")
