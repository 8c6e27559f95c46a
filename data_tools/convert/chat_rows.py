"""Chats that people publish for fine-tuning, as turns with the loss on the assistant's.

OpenAI messages (also under the keys of the published ACC dataset), ShareGPT, prompt and completion, Alpaca and Dolly. A
row may define its tools under `tools`, and its system prompt under `system`. Reasoning is read from `reasoning_content`
or from `<think>...</think>`, calls from `tool_calls` or from `<tool_call>` at the end of a text.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, cast

from acc_megatron.data_tools.conversation import Role, Turn, call_text
from acc_megatron.data_tools.convert.tool_definitions import TOOLS_RULE, parsed, tool_definitions, with_tools
from acc_megatron.data_tools.rows.fields import tagged
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.errors import DataError

MESSAGE_KEYS = ("dialogs", "input_messages", "prompt", "messages", "conversations", "conversation")
LAYOUTS = (
    f"messages are a list under one of {', '.join(MESSAGE_KEYS)}, a completion has 'prompt' and 'completion', an "
    "instruction has 'instruction' and 'output' or 'response'"
)
_ROLES = ("system", "user", "assistant", "tool")
_LOSS_KEYS = ("weight", "train", "loss")  # of OpenAI, axolotl and ms-swift: false or 0 for a message without loss
_INPUT_KEYS, _OUTPUT_KEYS = ("input", "context"), ("output", "response")


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
    """The chat of a row, or None if it has another shape. Raises DataError with `where` for a chat with a mistake."""
    found = _messages_of(value)
    if found is None:
        return None
    turns = [_turn(message, f"{where}: message {number}") for number, message in enumerate(found.messages, start=1)]
    turns = [replace(turn, supervised=False) if i < found.num_given else turn for i, turn in enumerate(turns)]
    _check_roles(turns, where)
    keys = found.keys
    if isinstance(system := value.get("system"), str) and system.strip() and turns[0].role != "system":
        turns, keys = [Turn(role="system", text=system), *turns], keys | {"system"}
    tools = tool_definitions(value.get("tools"))
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
        if isinstance(value.get(key), list):
            return _Messages(messages=value[key], keys=frozenset((key,)))
    return _instruction(value)


def _instruction(value: dict[str, Any]) -> _Messages | None:
    """Alpaca's and Dolly's rows; LLaMA-Factory's also have a `history` of questions and answers."""
    instruction = value.get("instruction")
    output_key = next((key for key in _OUTPUT_KEYS if isinstance(value.get(key), str)), None)
    if not isinstance(instruction, str) or output_key is None:
        return None
    input_key = next((key for key in _INPUT_KEYS if isinstance(value.get(key), str)), None)
    addition = value[input_key] if input_key else ""
    found = value.get("history")
    history: list[Any] = found if isinstance(found, list) else []
    exchanges = [*history, [f"{instruction}\n\n{addition}" if addition.strip() else instruction, value[output_key]]]
    messages = [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange if isinstance(exchange, list) else [None], strict=False)
    ]
    keys = {"instruction", "history", output_key, *((input_key,) if input_key else ())}
    return _Messages(messages=messages, keys=frozenset(keys))


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, dict):
        raise DataError(f"{where} must be an object with a role and text, got {type(message).__name__}")
    plain = openai_message(message)
    role = "system" if plain["role"] == "developer" else plain["role"]
    if role not in _ROLES:
        raise DataError(f"{where}: the role must be one of {', '.join(_ROLES)}, got {role!r:.80}")
    text = _text(plain.get("content"), where)
    if role == "assistant":
        return _reply(plain, text, where)
    if role == "user" and not text.strip():
        raise DataError(f"{where}: the user message is empty")
    return Turn(role=cast(Role, role), text=_tool_output(text) if role == "tool" else text)


def _text(content: object, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not parts or not all(isinstance(text, str) for text in texts):
        kinds = sorted({str(part.get("type")) if isinstance(part, dict) else type(part).__name__ for part in parts})
        found = f"parts of type {', '.join(kinds)}" if parts else type(content).__name__
        raise DataError(f"{where}: the content must be text or a list of text parts, got {found}")
    return "\n".join(str(text) for text in texts)


def _tool_output(text: str) -> str:
    """The output of a tool without the tags that Hermes writes around it, because the template adds them."""
    parts = tagged(text, "tool_response")
    is_wrapped = len(parts) == 1 and text.strip() == f"<tool_response>{parts[0]}</tool_response>"
    return parts[0].strip("\n") if is_wrapped else text


def _reply(message: dict[str, Any], text: str, where: str) -> Turn:
    """An assistant message. The loss covers it unless one of _LOSS_KEYS says otherwise."""
    separate = next((message[key] for key in ("reasoning_content", "reasoning") if message.get(key)), None)
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
