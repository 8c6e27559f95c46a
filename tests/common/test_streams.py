"""Compressed files are read like plain ones, and within their limits."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from acc_megatron.common import streams
from acc_megatron.common.json_rows import BadRow, Row, read_json, read_jsonl
from acc_megatron.common.streams import BadStream, located, open_stream
from acc_megatron.data_tools.rows.row_files import rows_of

LINES = b"".join(b'{"n": %d}\n' % n for n in range(2000))


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_has_the_rows_and_offsets_of_the_plain_one(tmp_path: Path, suffix: str) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / f"a.jsonl{suffix}"
    plain.write_bytes(LINES)
    half = len(LINES) // 2  # two members in one file, as log rotation makes them
    packed.write_bytes(COMPRESS[suffix](LINES[:half]) + COMPRESS[suffix](LINES[half:]))
    expected = [(row.line, row.byte_offset, row.value) for row in read_jsonl(plain) if isinstance(row, Row)]
    assert [(row.line, row.byte_offset, row.value) for row in rows_of(packed) if isinstance(row, Row)] == expected
    middle = next(read_jsonl(packed, byte_offset=expected[1500][1], first_line=1501))
    assert isinstance(middle, Row) and middle.value == {"n": 1500}
    document = tmp_path / f"a.traj{suffix}"
    document.write_bytes(COMPRESS[suffix](b'{"a": 1}'))
    assert [row.value for row in rows_of(document) if isinstance(row, Row)] == [{"a": 1}]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_truncated_file_gives_its_complete_rows_and_then_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](LINES)[:-5])
    *rows, bad = read_jsonl(path)
    assert isinstance(bad, BadRow) and bad.reason == "damaged_compression"
    assert all(isinstance(row, Row) for row in rows)
    document = tmp_path / f"a.json{suffix}"
    document.write_bytes(b"no compressed data")
    (bad,) = read_json(document)
    assert isinstance(bad, BadRow) and bad.reason == "damaged_compression"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compression_ratio_above_200_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](bytes(4 << 20)))
    with open_stream(path) as file:
        assert len(file.read()) == 4 << 20, "small files may be as dense as they like"
    monkeypatch.setattr(streams, "SLACK_BYTES", 1000)
    with open_stream(path) as file, pytest.raises(BadStream, match=r"a ratio of more than 200"):
        file.read()


def test_a_file_above_the_size_limit_is_refused_with_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    monkeypatch.setattr(streams, "MAX_BYTES", 100)
    (bad,) = (row for row in read_jsonl(path) if isinstance(row, BadRow))
    assert bad.reason == "file_too_large" and "100" in bad.detail


@pytest.mark.parametrize(("data", "name"), [(LINES, "stdin.jsonl"), (gzip.compress(LINES), "stdin.jsonl.gz")])
def test_standard_input_is_copied_once_and_its_format_detected(
    data: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams._spooled_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    for _ in range(2):
        rows = list(rows_of(Path("-")))
        assert len(rows) == 2000 and {row.file for row in rows} == {"-"}
    assert located(Path("-")).name == name
    streams._spooled_standard_input.cache_clear()


def test_standard_input_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    streams._spooled_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    monkeypatch.setattr(streams, "MAX_STANDARD_INPUT_BYTES", 100)
    with pytest.raises(streams.DataError, match="longer than 100 bytes"):
        located(Path("-"))
