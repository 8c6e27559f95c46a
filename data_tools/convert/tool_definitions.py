"""The definitions of the tools that a model may call, read from a row and from Qwen's system prompts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.qwen3 import TOOLS_CLOSING, TOOLS_OPENING
from acc_megatron.data_tools.rows.fields import optional_object

_KEYS = ("tools", "functions", "available_tools", "tool_definitions")
_PLACES = (
    "metadata",
    "meta",
    "extra_info",
    "request",
    "body",
    "kwargs",
    "responses_create_params",
    "info",
    "config",
    "agent",
)
_OPENING_KEYS = ("messages", "history", "trajectory", "conversations", "conversation", "contents")
_NUM_OPENING = 3  # the definitions can be part of one of the first messages or events
TOOLS_RULE = "'tools' must be a list of JSON objects, or the JSON text of one"


def tools_of_row(value: dict[str, Any]) -> tuple[str, ...] | None:
    """Each definition of a row as JSON text: under `tools`, and otherwise wherever the row states functions.

    () for a row without definitions, None if `tools` has another value.
    """
    if (own := tool_definitions(value.get("tools"))) is None or own:
        return own
    opening = next((found for key in _OPENING_KEYS if isinstance(found := value.get(key), list)), [])
    items = [item for item in opening[:_NUM_OPENING] if isinstance(item, dict)]
    places = [value, *(optional_object(value, place) for place in _PLACES)]
    places += [place for item in items for place in (item, optional_object(item, "args"))]
    stated = (tool_definitions(place[key]) for place in places for key in _KEYS if place.get(key))
    return next((tools for tools in stated if tools), ())


def tool_definitions(found: object) -> tuple[str, ...] | None:
    """Each definition in a list as JSON text; () for null or an empty text, None for any other value.

    `found` is a list of objects or of JSON texts, or the JSON text of such a list. Definitions of the Responses API, of
    Anthropic and of Gemini become those of OpenAI's chat API, as chat templates expect them; others stay as they are.
    """
    if found is None or found == "":
        return ()
    tools = parsed(found)
    tools = [parsed(tool) for tool in tools] if isinstance(tools, list) else None
    if tools is None or not all(isinstance(tool, dict) for tool in tools):
        return None
    return tuple(json.dumps(plain, ensure_ascii=False) for tool in tools for plain in _openai_tools(tool))


def _openai_tools(tool: Any) -> list[dict[str, Any]]:
    declared = next((tool[key] for key in ("functionDeclarations", "function_declarations") if key in tool), None)
    if isinstance(declared, list):
        return [{"type": "function", "function": item} for item in declared if isinstance(item, dict)]
    is_of_responses = tool.get("type") == "function" and "function" not in tool
    if not (is_of_responses or "input_schema" in tool) or not isinstance(tool.get("name"), str):
        return [tool]
    names = {"input_schema": "parameters"}
    kept = ("name", "description", "parameters", "input_schema", "strict")
    return [{"type": "function", "function": {names.get(key, key): tool[key] for key in kept if key in tool}}]


def with_tools(turns: Sequence[Turn], tools: tuple[str, ...]) -> tuple[Turn, ...]:
    """The turns with tools in their first system turn, which is added where there is none.

    A system prompt into which Qwen's template already wrote its tools is read back into its text and its tools.
    """
    opening = _without_tools(turns[0]) if turns and turns[0].role == "system" else None
    if not tools:
        return tuple(turns) if opening is None else (opening, *turns[1:])
    if opening is None:
        return (Turn(role="system", text="", tools=tools), *turns)
    return (replace(opening, tools=tools), *turns[1:])


def _without_tools(turn: Turn) -> Turn:
    text, opening, section = turn.text.rstrip("\n").partition(TOOLS_OPENING)
    if not opening or not section.endswith(TOOLS_CLOSING):
        return turn
    tools = tool_definitions(section.removesuffix(TOOLS_CLOSING).strip("\n").split("\n"))
    return replace(turn, text=text.removesuffix("\n\n"), tools=tools) if tools else turn


def parsed(value: object) -> object:
    """The value of a JSON text, None if it is not JSON; a value that is not a text stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value.encode())
    except (BadJson, UnicodeEncodeError):
        return None
