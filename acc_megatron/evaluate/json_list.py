"""The rows of one JSON document, one at a time: LongBench-v2 is published as one list of hundreds of megabytes."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from acc_megatron.data_tools.jsonl import MAX_DEPTH, MAX_ROW_BYTES, BadJson, BadRow, Row, as_row, parse_json
from acc_megatron.data_tools.streams import BadStream, open_stream

_BLOCK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def list_rows(path: Path) -> Iterator[Row | BadRow]:
    """The items of the list in a file, or the one object that it is, each as strict and as bounded as a JSON line.

    `line` is the position in the list, from 1; there is no offset and no hash. What cannot be read ends the rows with
    a bad one. Raises DataError when the file cannot be opened.
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
        raise BadJson("broken_json", f"{more!r} after the end of the document")


class _Text:
    """The text of a file from where it was read to, as much as is needed of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._place = "", 0

    def peek(self) -> str:
        """The next character that is no white space; none at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            assert match is not None
            self._place = match.end()
            if self._place < len(self._text) or not self._read_on():
                return self._text[self._place : self._place + 1]

    def take(self, expected: str) -> None:
        """Pass over one character. Raises BadJson for another."""
        if (found := self.peek()) != expected:
            raise BadJson("broken_json", f"expected {expected!r}, found {found!r}" if found else "the document is cut")
        self._place += 1

    def value(self) -> str:
        """The text of the value that comes next. Raises BadJson."""
        self.peek()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if (size := len(self._text) - self._place) > MAX_ROW_BYTES:
                    detail = f"no whole value in {size} characters; the limit is {MAX_ROW_BYTES}"
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
        """Read as much again as there is, so that a long value is tried few times; False at the end."""
        data = self._file.read(max(_BLOCK_BYTES, len(self._text) - self._place))
        try:
            self._text, self._place = self._text[self._place :] + self._decode(data, not data), 0
        except UnicodeDecodeError as error:
            raise BadJson("invalid_utf8", f"byte {error.start} of a block: {error.reason}") from None
        return bool(data)
