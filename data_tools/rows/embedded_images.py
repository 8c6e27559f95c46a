"""Takes base64 images out of the texts of a row: they are no text, and one can be longer than all pages together."""

import re
from typing import Any

_URL = re.compile(
    r"data:(?:[\w.+-]{1,40}/[\w.+-]{1,80})?(?:;[\w=.-]{1,40}){0,3};base64,"
    r"(?:[A-Za-z0-9+/=_%-]+|\\?\s{1,8}(?=[A-Za-z0-9+/=]{60}))*"
)
# the first bytes of PNG, JPEG, GIF and WebP
_BARE = re.compile(r"(?<![A-Za-z0-9+/])(?:iVBORw0KGgo|/9j/4|R0lGOD[dl]h|UklGR)[A-Za-z0-9+/=]{200,}")
_MARKS = (";base64,", "iVBORw0KGgo", "/9j/4", "R0lGOD", "UklGR")
_MARKS_IN_BYTES = tuple(mark.encode() for mark in _MARKS)
_TYPE_KEYS = ("media_type", "mime_type", "mimeType")


def may_have_images(content: bytes) -> bool:
    """Whether the JSON of a row has any sign of a base64 image."""
    return b"image/" in content or any(mark in content for mark in _MARKS_IN_BYTES)


def without_images(value: Any) -> tuple[Any, int]:
    """A JSON value without the base64 images in its texts, and their number; the value itself if it has none."""
    if isinstance(value, str):
        if not any(mark in value for mark in _MARKS):
            return value, 0
        text, num_urls = _URL.subn("", value)
        text, num_bare = _BARE.subn("", text)
        return text, num_urls + num_bare
    if isinstance(value, list):
        items = [without_images(item) for item in value]
        number = sum(count for _, count in items)
        return ([item for item, _ in items], number) if number else (value, 0)
    if not isinstance(value, dict):
        return value, 0
    if isinstance(value.get("data"), str) and any(str(value.get(key, "")).startswith("image/") for key in _TYPE_KEYS):
        return value | {"data": ""}, 1
    found = {key: without_images(item) for key, item in value.items()}
    number = sum(count for _, count in found.values())
    return ({key: item for key, (item, _) in found.items()}, number) if number else (value, 0)
