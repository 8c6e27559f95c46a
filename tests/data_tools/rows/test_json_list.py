"""The rows of one JSON document are read in bounded memory and with the checks of JSON lines."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from acc_megatron.common.json_rows import MAX_ROW_BYTES, BadRow, Row
from acc_megatron.data_tools.rows import json_list
from acc_megatron.data_tools.rows.json_list import list_rows


def test_a_list_larger_than_the_limit_of_a_row_is_read_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    contexts = [
        f"{number}é\U0001f600" * 500_000 for number in range(4)
    ]  # characters of two and four bytes, across the ends of blocks
    path.write_text(json.dumps([{"context": text} for text in contexts], ensure_ascii=False, indent=4))
    with path.open("ab") as file:
        file.write(b" " * (MAX_ROW_BYTES - path.stat().st_size + 1))
    tracemalloc.start()
    for number, row in enumerate(list_rows(path)):
        assert isinstance(row, Row) and row.line == number + 1
        assert row.value == {"context": contexts[number]}
    assert number == 3
    assert tracemalloc.get_traced_memory()[1] < 90e6  # a few copies of a row of 6 MB with four bytes for each character
    tracemalloc.stop()


@pytest.mark.parametrize("compress", [False, True])
def test_small_documents_are_read_as_python_reads_them(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / ("data.json.gz" if compress else "data.json")
    for text in (
        "[]",
        " [ ] ",
        '[{"a": [1, "]"]}, {"b": "\\"\\\\"}]\n',
        '{"a": 1}',
        '\ufeff[{"a": 1}]',
        '[{"a": 1},\n\n{"a": 2}]',
    ):
        path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
        value = json.loads(text.removeprefix("\ufeff"))
        assert [row.value for row in list_rows(path)] == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        (b"", "broken_json", 1),
        (b'[{"a": 1}', "broken_json", 2),
        (b'[{"a": 1},]', "broken_json", 2),
        (b'[{"a": 1} {"a": 2}]', "broken_json", 2),
        (b'[{"a": 1}, {"a": ', "broken_json", 2),
        (b'[{"a": 1}] [', "broken_json", 2),
        (b'[{"a": 1}, 7]', "not_an_object", 2),
        (b'[{"a": 1, "a": 2}]', "duplicate_key", 1),
        (b'[{"a": NaN}]', "nan", 1),
        (b'[{"a": 1}, {"a": "\xff"}]', "invalid_utf8", 1),
        (b"[" * 100_000, "too_deep", 1),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "number_too_long", 1),
    ],
)
def test_an_unreadable_document_is_one_bad_row_with_its_place(
    tmp_path: Path, text: bytes, reason: str, line: int
) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(text)
    *good, bad = list_rows(path)
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.line) == (reason, line)
    assert all(isinstance(row, Row) for row in good)


def test_a_value_longer_than_the_limit_of_a_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "MAX_ROW_BYTES", 4 << 20)
    path = tmp_path / "data.json"
    path.write_bytes(b'[{"a": "' + b"x" * (6 << 20))
    (bad,) = list_rows(path)
    assert isinstance(bad, BadRow) and (bad.reason, bad.line) == ("line_too_long", 1)
