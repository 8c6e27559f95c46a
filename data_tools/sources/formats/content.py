"""The text of a message's content: a string, a list of parts, or a tool output that is written as data.

The keys under which logs write the name and the arguments of a call are here too.
"""

import json
from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in

ARGUMENT_KEYS = (
    "args", "parameters", "params", "input", "tool_input", "tool_args", "tool_arguments", "kwargs", "action_input",
)  # fmt: skip
NAME_KEYS = ("name", "tool_name", "tool", "function_name", "action")
_PART_TYPES = {
    "text", "input_text", "output_text", "image", "image_url", "input_image", "document", "thinking",
    "redacted_thinking", "reasoning", "tool_use", "tool_result",
}  # fmt: skip
_THINKING_TYPES = ("thinking", "reasoning", "reasoning.text", "reasoning.summary")
_PART_KEYS = {"type", "text", "annotations", "citations", "cache_control"}


def text_of_parts(content: object) -> str:
    """A text, the text of one part, or the texts of a list of parts, one on each line."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


def with_data_as_text(output: object) -> object:
    """A tool output with its data as JSON text: an object, a list of objects, or the objects between other items.

    A string, null and a list of content parts stay as they are.
    """
    if isinstance(output, dict):
        return [output] if _is_part(output) else _json(output)
    if not isinstance(output, list) or all(_is_part(item) for item in output):
        return output
    if all(isinstance(item, dict | list) for item in output):
        return _json(output)
    return "\n".join(text_of_parts(item) if isinstance(item, str) or _is_part(item) else _json(item) for item in output)


def thinking_of(content: object) -> str:
    """The text of parts with reasoning, separated by blank lines; '' if none."""
    parts = objects_in(content)
    thoughts = [_text_of_thinking(part) for part in parts if part.get("type") in _THINKING_TYPES]
    return "\n\n".join(thought for thought in thoughts if isinstance(thought, str) and thought.strip())


def _text_of_thinking(part: dict[str, Any]) -> object:
    return next((part[key] for key in ("thinking", "text", "reasoning", "summary") if part.get(key)), None)


def _is_part(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    kind: Any = item.get("type")
    return (isinstance(kind, str) and kind in _PART_TYPES) or ("text" in item and set(item) <= _PART_KEYS)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
