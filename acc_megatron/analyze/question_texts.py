"""The questions of training and benchmark rows, and all other text of a row."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acc_megatron.common.json_rows import BadRow
from acc_megatron.data_tools.compile.near_duplicates import QUESTION_KEYS
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.errors import DataError

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class RowTexts:
    """The question of a row, all other text of the row, and its place, such as `triples.jsonl:3`."""

    place: str
    question: str
    rest: str


def read_texts(path: Path) -> Iterator[RowTexts]:
    """The texts of a file's rows; the question of a chat under `prompt` is its last message.

    Raises DataError, naming the place.
    """
    if not path.is_file():
        hint = ": it is a folder; give the file of rows in it, such as triples.jsonl" if path.is_dir() else ""
        raise DataError(f"no file of questions at {path}{hint}")
    for row in rows_of(path):
        where = f"{path.name}:{row.line}"
        if isinstance(row, BadRow):
            raise DataError(f"{where}: {row.reason}: {row.detail}")
        key = next((key for key in QUESTION_KEYS if isinstance(row.value.get(key), str)), None)
        if key is None:
            raise DataError(f"{where}: no question under {', '.join(QUESTION_KEYS)}; keys: {', '.join(row.value)}")
        question = _last_message(row.value[key])
        rest = "\n".join(_strings({name: value for name, value in row.value.items() if name != key}))
        yield RowTexts(where, _SPACE.sub(" ", question).strip(), rest)


def _last_message(text: str) -> str:
    """The last message of a chat written as JSON, as in MRCR; any other text unchanged."""
    if not text.startswith("["):
        return text
    try:
        return str(json.loads(text)[-1]["content"])
    except (ValueError, LookupError, TypeError):
        return text


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
