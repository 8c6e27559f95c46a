"""Typed access to the fields of untrusted rows: a field of the wrong type drops its row, never the run."""

import ast
import re
from functools import lru_cache
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.errors import Dropped

_MAX_LITERAL_CHARACTERS = 1 << 22
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text_of(value: dict[str, Any], key: str) -> str:
    """The string under `key`. Raises Dropped('malformed') for anything else."""
    return _typed(value, key, str, "a string")


def list_of(value: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`. Raises Dropped('malformed') for anything else."""
    return _typed(value, key, list, "a list")


def object_of(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`. Raises Dropped('malformed') for anything else."""
    return _typed(value, key, dict, "an object")


def texts_of(value: dict[str, Any], key: str) -> list[str]:
    """The list of strings under `key`. Raises Dropped('malformed') for anything else."""
    texts = list_of(value, key)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Dropped("malformed", f"{key}[{i}] must be a string, got {type(text).__name__}")
    return texts


def objects_of(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`. Raises Dropped('malformed') for anything else."""
    objects = list_of(value, key)
    for i, item in enumerate(objects):
        if not isinstance(item, dict):
            raise Dropped("malformed", f"{key}[{i}] must be an object, got {type(item).__name__}")
    return objects


def optional_object(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`, or an empty one for anything else."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def objects_in(found: object) -> list[dict[str, Any]]:
    """The objects of a list; empty for any other value."""
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def embedded_object(value: object) -> dict[str, Any]:
    """A value that is an object, or the object in its JSON text; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = parse_json(value.strip().encode())
        except BadJson:
            return {}
    return value if isinstance(value, dict) else {}


def embedded_list(value: object) -> list[Any] | None:
    """A value that is a list, or the list in its JSON text or in Python's repr; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        text = value.strip()
        try:
            value = parse_json(text.encode())
        except (BadJson, UnicodeEncodeError):
            value = literal(text)
    return value if isinstance(value, list) else None


def literal_object(text: str) -> dict[str, Any]:
    """The object in a Python literal; an empty one for any other text."""
    found = literal(text) if text.startswith("{") else None
    return found if isinstance(found, dict) and all(isinstance(key, str) for key in found) else {}


def fenced_blocks(text: str) -> list[str]:
    """The contents of the fenced code blocks of a text, each with its last newline."""
    return _FENCED.findall(text)


@lru_cache(maxsize=4096)
def plain_name(key: str) -> str:
    """`gold_answer` for `goldAnswer`, `Gold Answer` and `gold-answer`."""
    return _HUMP.sub("_", key).lower().replace(" ", "_").replace("-", "_")


def tagged(text: str, tag: str) -> list[str]:
    """The text between each `<tag>` and the next `</tag>`, in time linear in the text."""
    found, opening, closing, position = [], f"<{tag}>", f"</{tag}>", 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        found.append(text[start + len(opening) : end])
        position = end + len(closing)
    return found


def literal(text: str) -> Any:
    """The value of a Python literal; None for any other text. Only literals are read, nothing is evaluated."""
    try:
        return ast.literal_eval(text) if len(text) <= _MAX_LITERAL_CHARACTERS else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _typed(value: dict[str, Any], key: str, kind: type, words: str) -> Any:
    found = value.get(key)
    if isinstance(found, kind):
        return found
    got = type(found).__name__ if key in value else "nothing"
    raise Dropped("malformed", f"{key!r} must be {words}, got {got}")
