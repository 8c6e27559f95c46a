"""Read JSON rows strictly and in bounded memory: a bad line is reported with its place and reason, and skipped.

Lines end at the byte `\\n` only, so U+2028 and similar characters inside a string never split a row.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from acc_megatron.common.streams import BadStream, open_stream

MAX_ROW_BYTES = 64 << 20
MAX_DEPTH = 64
_SKIP_BYTES = 4096 << 10
_UTF8_BOM = b"\xef\xbb\xbf"
_BOMS = (_UTF8_BOM, b"\xff\xfe", b"\xfe\xff")
_NESTED = (dict, list)
_SHORT = 4_096  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One good row: its object, where it starts (line 1-based), and the SHA-256 of its bytes without the newline.

    `images_removed` counts base64 images that were taken out of its texts (data_tools/rows/embedded_images.py).
    """

    value: dict[str, Any]
    file: str
    line: int
    byte_offset: int
    sha256: str
    images_removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """One row that could not be read; `reason` is a short slug, `detail` is a sentence."""

    file: str
    line: int
    byte_offset: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its number from 1, where it starts, its size, and its bytes including the newline.

    A line that could not be read has no data; `problem` is then (reason, detail).
    """

    number: int
    byte_offset: int
    num_bytes: int
    data: bytes | None
    problem: tuple[str, str] = ("", "")


class BadJson(Exception):
    """Text is not a JSON value, or one that is not accepted; `reason` is a short slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_jsonl(
    path: Path,
    *,
    byte_offset: int = 0,
    first_line: int = 1,
    num_rows: int | None = None,
    hashed: bool = True,
    stream: IO[bytes] | None = None,
) -> Iterator[Row | BadRow]:
    """Read at most `num_rows` rows, starting at `byte_offset`, which must be the start of line `first_line`.

    An open `stream` of the file is used and left open. Without `hashed`, rows have an empty SHA-256. Blank lines are
    not rows, but count in the line numbers. A line over MAX_ROW_BYTES is skipped in blocks and reported. Raises
    DataError when the file cannot be opened.
    """
    return itertools.islice(_rows(path, byte_offset, first_line, hashed, stream), num_rows)


def _rows(
    path: Path, byte_offset: int, first_line: int, hashed: bool, stream: IO[bytes] | None
) -> Iterator[Row | BadRow]:
    for line in read_lines(path, byte_offset=byte_offset, first_line=first_line, stream=stream):
        yield from parsed_line(line, path, hashed=hashed)


def parsed_line(line: Line, path: Path, *, hashed: bool = True) -> Iterator[Row | BadRow]:
    """The row of a line of `path`; nothing for a blank line."""
    if line.data is None:
        reason, detail = line.problem
        yield BadRow(file=str(path), line=line.number, byte_offset=line.byte_offset, reason=reason, detail=detail)
    elif not line.data.isspace():
        yield _row(line.data.rstrip(b"\r\n"), path, line, hashed)


def read_lines(
    path: Path, *, byte_offset: int = 0, first_line: int = 1, stream: IO[bytes] | None = None
) -> Iterator[Line]:
    """The lines of a file as bytes, in bounded memory; a line over MAX_ROW_BYTES has no `data`.

    When a compressed file is damaged or exceeds a limit, the last line reports it. Offsets count uncompressed bytes,
    also those of a UTF-8 byte-order mark at the start of the file, which is removed.
    """
    with nullcontext(stream) if stream else open_stream(path) as file:
        number, start = first_line, byte_offset
        try:
            file.seek(byte_offset)
            while line := _next_line(file, number, start):
                yield line
                number, start = number + 1, start + line.num_bytes
        except BadStream as bad:
            yield Line(number=number, byte_offset=start, num_bytes=0, data=None, problem=(bad.reason, bad.detail))


def _next_line(file: IO[bytes], number: int, start: int) -> Line | None:
    data = file.readline(MAX_ROW_BYTES + 1)
    if len(data) <= MAX_ROW_BYTES or data.endswith(b"\n"):
        text = data if start else data.removeprefix(_UTF8_BOM)
        return Line(number=number, byte_offset=start, num_bytes=len(data), data=text) if data else None
    num_bytes = len(data)
    del data  # before more is read
    while (block := file.readline(_SKIP_BYTES)) and not block.endswith(b"\n"):
        num_bytes += len(block)
    num_bytes += len(block)
    problem = ("line_too_long", f"the line has {num_bytes} bytes; the limit is {MAX_ROW_BYTES}")
    return Line(number=number, byte_offset=start, num_bytes=num_bytes, data=None, problem=problem)


def read_json(path: Path) -> list[Row | BadRow]:
    """Read a file that is one JSON document (`.json`, `.traj`): one row for an object, one per item for a list.

    The `line` of an item is its position in the list, from 1; its SHA-256 is that of the item, serialized again.
    Raises DataError when the file cannot be opened.
    """
    try:
        with open_stream(path) as file:
            data = file.read(MAX_ROW_BYTES + 1)
    except BadStream as bad:
        return [BadRow(file=str(path), line=1, byte_offset=0, reason=bad.reason, detail=bad.detail)]
    if len(data) > MAX_ROW_BYTES:
        detail = f"more than {MAX_ROW_BYTES} bytes in one JSON document; convert it to JSON lines"
        return [BadRow(file=str(path), line=1, byte_offset=0, reason="file_too_large", detail=detail)]
    try:
        value = parse_json(data.removeprefix(_UTF8_BOM))
    except BadJson as bad:
        return [BadRow(file=str(path), line=1, byte_offset=0, reason=bad.reason, detail=bad.detail)]
    if not isinstance(value, list):
        return [as_row(value, path, 1, 0, hashlib.sha256(data).hexdigest())]
    return [as_row(item, path, line, 0, digest(item)) for line, item in enumerate(value, start=1)]


def parse_json(data: bytes) -> Any:
    """The JSON value in `data`, parsed more strictly than by `json.loads`.

    Raises BadJson also for a byte-order mark, NUL bytes, invalid UTF-8, NaN and infinities, duplicate keys, unpaired
    surrogates, and nesting deeper than MAX_DEPTH.
    """
    if data.startswith(_BOMS):
        raise BadJson("bom", "the text starts with a byte-order mark; save it as UTF-8 without one")
    if (position := data.find(0)) >= 0:
        raise BadJson("nul", f"NUL byte at byte {position}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadJson("invalid_utf8", f"byte {error.start}: {error.reason}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson("broken_json", f"{error.msg} at character {error.pos} of {len(text)}") from None
    except RecursionError:
        raise BadJson("too_deep", f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:  # an integer with more digits than Python converts
        raise BadJson("number_too_long", str(error)) from None
    # a short text that has neither escapes nor many brackets need not be checked; a long one takes longer to search
    if len(text) > _SHORT or "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _check(value)
    return value


def _row(data: bytes, path: Path, line: Line, hashed: bool) -> Row | BadRow:
    number, offset = line.number, line.byte_offset
    try:
        value = parse_json(data)
    except BadJson as bad:
        return BadRow(file=str(path), line=number, byte_offset=offset, reason=bad.reason, detail=bad.detail)
    return as_row(value, path, number, offset, hashlib.sha256(data).hexdigest() if hashed else "")


def as_row(value: Any, path: Path, line: int, byte_offset: int, sha256: str) -> Row | BadRow:
    """A value with its place in the file; a BadRow unless it is an object."""
    if isinstance(value, dict):
        return Row(value=value, file=str(path), line=line, byte_offset=byte_offset, sha256=sha256)
    detail = f"expected an object, got {type(value).__name__}"
    return BadRow(file=str(path), line=line, byte_offset=byte_offset, reason="not_an_object", detail=detail)


def digest(value: Any) -> str:
    """The SHA-256 of a value, serialized as JSON."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadJson("duplicate_key", f"key {twice[:80]!r} occurs more than once in an object")
    return value


def _refuse_constant(name: str) -> None:
    raise BadJson("nan", f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJson("nan", f"{text[:40]} does not fit into a 64-bit float")
    return number


def depth_of(value: Any) -> int:
    """The nesting depth of lists and objects in a value; 0 for a scalar."""
    return sum(1 for _ in _levels(value))


def _levels(value: Any) -> Iterator[list[Any]]:
    """The lists and objects of a value, grouped by depth, outermost first."""
    level = [value] if type(value) in _NESTED else []
    while level:
        yield level
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) in _NESTED
        ]


def _check(value: Any) -> None:
    """Raise BadJson for deep nesting and unpaired surrogates; every item is visited once."""
    if type(value) is str and not value.isascii():
        _need_utf8(value)
    for depth, level in enumerate(_levels(value), start=1):
        if depth > MAX_DEPTH:
            raise BadJson("too_deep", f"nested deeper than {MAX_DEPTH}")
        for item in level:
            for text in item if type(item) is list else (*item, *item.values()):
                if type(text) is str and not text.isascii():
                    _need_utf8(text)


def _need_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadJson(
            "lone_surrogate", f"unpaired surrogate {error.object[error.start]!a}, which has no UTF-8 form"
        ) from None


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
