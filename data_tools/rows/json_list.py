"""The rows of one JSON document, one at a time: LongBench-v2 is published as one list of hundreds of megabytes.

ijson is not used: it drops duplicate keys, replaces lone surrogates by "?", and limits neither size nor depth.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from acc_megatron.common.json_rows import MAX_DEPTH, MAX_ROW_BYTES, BadJson, BadRow, Row, as_row, parse_json
from acc_megatron.common.streams import BadStream, open_stream

_BLOCK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def list_rows(path: Path) -> Iterator[Row | BadRow]:
    """The items of a list, or the only object of a file, with the checks and limits of JSON lines.

    `line` is the position in the list, from 1; offset and hash are empty. Unreadable content ends the rows with a bad
    row. Raises DataError for a file that cannot be opened.
    """
    num_rows = 0
    try:
        with open_stream(path) as file:
            for item in _items(_Text(file)):
                yield as_row(parse_json(item.encode()), path, num_rows + 1, 0, "")
                num_rows += 1
    except (BadJson, BadStream) as bad:
        yield BadRow(file=str(path), line=num_rows + 1, byte_offset=0, reason=bad.reason, detail=bad.detail)


def _items(text: "_Text") -> Iterator[str]:
    if text.peek() != "[":
        yield text.value()
    else:
        text.take("[")
        if text.peek() != "]":
            yield text.value()
            while text.peek() == ",":
                text.take(",")
                yield text.value()
        text.take("]")
    if more := text.peek():
        raise BadJson("broken_json", f"the document ends before {more!r}")


class _Text:
    """The unread text of a file, read in blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._place = "", 0

    def peek(self) -> str:
        """The next character that is not white space; '' at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            assert match is not None
            self._place = match.end()
            if self._place < len(self._text) or not self._read_on():
                return self._text[self._place : self._place + 1]

    def take(self, expected: str) -> None:
        """Skip one character. Raises BadJson if another one follows."""
        if (found := self.peek()) != expected:
            raise BadJson("broken_json", f"expected {expected!r}, found {found!r}" if found else "it is cut off")
        self._place += 1

    def value(self) -> str:
        """The text of the next value. Raises BadJson."""
        self.peek()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if (size := len(self._text) - self._place) > MAX_ROW_BYTES:
                    detail = f"no complete value within {size} characters; the limit is {MAX_ROW_BYTES}"
                    raise BadJson("line_too_long", detail) from None
                if not self._read_on():
                    raise BadJson("broken_json", error.msg) from None
            except RecursionError:
                raise BadJson("too_deep", f"nested deeper than {MAX_DEPTH}") from None
            except ValueError as error:  # an integer of more digits than Python converts
                raise BadJson("number_too_long", str(error)) from None
            else:
                value, self._place = self._text[self._place : end], end
                return value

    def _read_on(self) -> bool:
        """Read a block as long as the unread text, so that a long value is parsed few times; False at the end."""
        data = self._file.read(max(_BLOCK_BYTES, len(self._text) - self._place))
        try:
            self._text, self._place = self._text[self._place :] + self._decode(data, not data), 0
        except UnicodeDecodeError as error:
            raise BadJson("invalid_utf8", f"byte {error.start} of a block: {error.reason}") from None
        return bool(data)
