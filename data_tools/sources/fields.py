"""Typed access to fields of untrusted rows: what has the wrong shape drops that row, by name, never the run."""

from typing import Any

from acc_megatron.data_tools.jsonl import BadJson, parse_json
from acc_megatron.data_tools.schema import Dropped


def text_of(value: dict[str, Any], key: str) -> str:
    """The string under `key`; Dropped('malformed') when there is none."""
    return _typed(value, key, str, "a string")


def list_of(value: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`; Dropped('malformed') when there is none."""
    return _typed(value, key, list, "a list")


def object_of(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; Dropped('malformed') when there is none."""
    return _typed(value, key, dict, "an object")


def texts_of(value: dict[str, Any], key: str) -> list[str]:
    """The list of strings under `key`; Dropped('malformed') when there is none."""
    texts = list_of(value, key)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Dropped("malformed", f"{key}[{i}] must be a string, got {type(text).__name__}")
    return texts


def objects_of(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`; Dropped('malformed') when there is none."""
    objects = list_of(value, key)
    for i, item in enumerate(objects):
        if not isinstance(item, dict):
            raise Dropped("malformed", f"{key}[{i}] must be an object, got {type(item).__name__}")
    return objects


def optional_object(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`, or an empty one when the key is absent or holds something else."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def embedded_object(value: object) -> dict[str, Any]:
    """The object that a value is, or that its JSON text holds; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = parse_json(value.strip().encode())
        except BadJson:
            return {}
    return value if isinstance(value, dict) else {}


def tagged(text: str, tag: str) -> list[str]:
    """What stands between each `<tag>` and the `</tag>` after it, in time linear in the text."""
    found, opening, closing, position = [], f"<{tag}>", f"</{tag}>", 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        found.append(text[start + len(opening) : end])
        position = end + len(closing)
    return found


def _typed(value: dict[str, Any], key: str, kind: type, words: str) -> Any:
    found = value.get(key)
    if isinstance(found, kind):
        return found
    got = type(found).__name__ if key in value else "nothing"
    raise Dropped("malformed", f"{key!r} must be {words}, got {got}")
