"""Values as JSON in UTF-8, written by orjson, which takes a tenth of the time of the module json."""

import json
from typing import Any

import orjson


def json_bytes(value: Any, *, sort_keys: bool = False) -> bytes:
    """The JSON of a value without white space.

    What orjson refuses, for example an integer of more than 64 bits, is written by the module json. Raises
    UnicodeEncodeError for an unpaired surrogate.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":")).encode()


def content_bytes(value: Any) -> bytes:
    """The content of a row as JSON: the same for any order of keys and white space, and for Parquet and JSON.

    Null fields count as absent, because Parquet writes every field of any row, and 1.0 counts as 1.
    """
    data = json_bytes(value, sort_keys=True)
    if b"null" in data or b".0" in data:
        data = json_bytes(_without_nulls(value), sort_keys=True)
    return data


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
