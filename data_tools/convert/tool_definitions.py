"""The definitions of the tools that a model may call, read from a row and from Qwen's system prompts."""

import json
from collections.abc import Sequence
from dataclasses import replace

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.qwen3 import TOOLS_CLOSING, TOOLS_OPENING

TOOLS_RULE = "'tools' must be a list of JSON objects, or the JSON text of one"


def tool_definitions(found: object) -> tuple[str, ...] | None:
    """Each definition of a row's `tools` as JSON text; () for null or an empty text, None for any other value.

    `found` is a list of objects or of JSON texts, or the JSON text of such a list.
    """
    if found is None or found == "":
        return ()
    tools = parsed(found)
    tools = [parsed(tool) for tool in tools] if isinstance(tools, list) else None
    if tools is None or not all(isinstance(tool, dict) for tool in tools):
        return None
    return tuple(json.dumps(tool, ensure_ascii=False) for tool in tools)


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
