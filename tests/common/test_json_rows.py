"""A bad line is reported with its place and reason, and no other line is lost."""

import json
from pathlib import Path

import pytest

from acc_megatron.common import json_rows as jsonl
from acc_megatron.common.json_rows import BadRow, Row, read_json, read_jsonl
from acc_megatron.errors import DataError

GOOD = b'{"a": 1}\n'


def rows(tmp_path: Path, data: bytes, **options: int) -> list[Row | BadRow]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return list(read_jsonl(path, **options))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'{"a": ', "broken_json"),
        (b'{"a": 1} {"b": 2}', "broken_json"),
        (b"[1]", "not_an_object"),
        (b'{"a": NaN}', "nan"),
        (b'{"a": -Infinity}', "nan"),
        (b'{"a": 1e999}', "nan"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate_key"),
        (b'{"a": "\\ud800x"}', "lone_surrogate"),
        (b'{"\\uDFFF": 1}', "lone_surrogate"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "too_deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b'\xef\xbb\xbf{"a": 1}', "bom"),
        (b'{"a": "\x00"}', "nul"),
        (b'{"a": ' + b"9" * 5000 + b"}", "number_too_long"),
    ],
)
def test_a_bad_line_is_reported_and_only_that_line_is_lost(tmp_path: Path, line: bytes, reason: str) -> None:
    first, bad, last = rows(tmp_path, GOOD + line + b"\n" + GOOD)
    assert isinstance(first, Row) and isinstance(last, Row) and last.line == 3
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.line, bad.byte_offset) == (reason, 2, len(GOOD))
    assert bad.detail


def test_a_byte_order_mark_at_the_start_of_a_file_is_no_part_of_its_first_row(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    with_mark, without = rows(tmp_path, mark + GOOD + GOOD), rows(tmp_path, GOOD + GOOD)
    assert [row.value for row in with_mark if isinstance(row, Row)] == [
        row.value for row in without if isinstance(row, Row)
    ]
    assert [row.byte_offset for row in with_mark] == [0, len(mark) + len(GOOD)]
    (tmp_path / "a.json").write_bytes(mark + b'[{"a": 1}]')
    assert [row.value for row in read_json(tmp_path / "a.json") if isinstance(row, Row)] == [{"a": 1}]
    (bad,) = rows(tmp_path, b'\xff\xfe{"a": 1}\n')
    assert isinstance(bad, BadRow) and bad.reason == "bom"


def test_a_line_ends_at_newline_only(tmp_path: Path) -> None:
    values = ["\u2028", "\x85", "\x0b\x0c\x1c", "\r"]
    data = "".join(json.dumps({"a": value}, ensure_ascii=False) + "\n" for value in values).encode()
    assert [row.value["a"] for row in rows(tmp_path, data) if isinstance(row, Row)] == values


def test_a_paired_surrogate_escape_is_accepted(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, b'{"a": "\\ud83d\\ude00"}\n')
    assert isinstance(row, Row) and row.value == {"a": "\U0001f600"}


def test_nesting_within_the_limit_and_brackets_in_strings_are_accepted(tmp_path: Path) -> None:
    deep = b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}\n"
    text = json.dumps({"a": "[{" * 5000}).encode() + b"\n"
    assert all(isinstance(row, Row) for row in rows(tmp_path, deep + text))


def test_blank_lines_are_not_rows_but_count_as_lines(tmp_path: Path) -> None:
    found = rows(tmp_path, b"\n  \r\n" + GOOD + b"\n" + GOOD)
    assert [row.line for row in found] == [3, 5]


def test_crlf_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    plain, windows = rows(tmp_path, GOOD + GOOD), rows(tmp_path, b'{"a": 1}\r\n{"a": 1}')
    assert [row.sha256 for row in plain if isinstance(row, Row)] == [
        row.sha256 for row in windows if isinstance(row, Row)
    ]


def test_reading_can_start_at_any_line_and_stop_after_some(tmp_path: Path) -> None:
    data = b'{"n": 0}\n{"n": 1}\nbroken\n\n{"n": 2}\n{"n": 3}\n'
    whole = rows(tmp_path, data)
    for start, row in enumerate(whole):
        for count in range(len(whole) + 1):
            part = rows(tmp_path, data, byte_offset=row.byte_offset, first_line=row.line, num_rows=count)
            assert part == whole[start : start + count]


def test_a_line_that_is_too_long_is_skipped_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(jsonl, "_SKIP_BYTES", 7)
    fits = b'{"a": "' + b"x" * 91 + b'"}\n'
    assert len(fits) == 101  # 100 and the newline
    bad_line = b'{"a": "' + b"x" * 500 + b'"}\n'
    first, bad, last = rows(tmp_path, fits + bad_line + GOOD)
    assert isinstance(first, Row) and isinstance(last, Row) and last.line == 3
    assert isinstance(bad, BadRow) and bad.reason == "line_too_long"
    assert f"{len(bad_line)} bytes" in bad.detail


def test_a_truncated_document_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "run.traj"
    path.write_text('{"trajectory": [{"action": "ls", "obser')
    (bad,) = read_json(path)
    assert isinstance(bad, BadRow) and bad.reason == "broken_json" and "of 39" in bad.detail


def test_a_document_over_the_limit_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 20)
    path = tmp_path / "run.traj"
    path.write_text(json.dumps({"a": "x" * 50}))
    (bad,) = read_json(path)
    assert isinstance(bad, BadRow) and bad.reason == "file_too_large"


def test_a_list_document_gives_its_items_by_position(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1},\n 2,\n {"a": 3}]')
    first, bad, last = read_json(path)
    assert isinstance(first, Row) and isinstance(last, Row)
    assert (first.line, last.line, last.value) == (1, 3, {"a": 3})
    assert first.sha256 != last.sha256
    assert isinstance(bad, BadRow) and (bad.line, bad.reason) == (2, "not_an_object")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        list(read_jsonl(tmp_path / "absent.jsonl"))
