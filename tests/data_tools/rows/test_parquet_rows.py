"""Parquet rows are read like JSON rows, within the same limits."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.rows import parquet_rows
from acc_megatron.data_tools.rows.parquet_rows import read_parquet
from acc_megatron.data_tools.rows.row_files import row_at, rows_of
from acc_megatron.errors import DataError


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_rows_are_in_order_from_any_start_and_null_is_absent(tmp_path: Path) -> None:
    rows = [{"n": n, "odd": n if n % 2 else None, "deep": {"a": [None, 1], "b": None}} for n in range(50)]
    path = write(tmp_path / "a.parquet", rows, row_group_size=20)
    found = list(read_parquet(path, first_row=15, num_rows=30))
    assert [(row.line, row.value["n"]) for row in found if isinstance(row, Row)] == [(n + 1, n) for n in range(15, 45)]
    assert isinstance(found[0], Row) and found[0].value == {"n": 15, "odd": 15, "deep": {"a": [None, 1]}}
    assert isinstance(found[1], Row) and found[1].value == {"n": 16, "deep": {"a": [None, 1]}}
    assert len(found[0].sha256) == 64 and row_at(path, 16, 0) == found[0]


def test_a_map_reads_as_an_object(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.string())
    pq.write_table(pa.table({"files": pa.array([[("a.py", "x")]], kind)}), tmp_path / "a.parquet")
    (row,) = read_parquet(tmp_path / "a.parquet")
    assert isinstance(row, Row) and row.value == {"files": {"a.py": "x"}}


def test_dates_and_times_are_iso_text(tmp_path: Path) -> None:
    zone = datetime.timezone(datetime.timedelta(0))
    row = {
        "day": datetime.date(2020, 1, 2),
        "made": [datetime.datetime(2020, 1, 2, 3, 4, 5, 600_000)],
        "zoned": {"at": datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=zone)},
        "time": datetime.time(3, 4),
    }
    (found,) = read_parquet(write(tmp_path / "a.parquet", [row]))
    assert isinstance(found, Row) and found.value == {
        "day": "2020-01-02",
        "made": ["2020-01-02T03:04:05.600000"],
        "zoned": {"at": "2020-01-02T03:04:05+00:00"},
        "time": "03:04:00",
    }


@pytest.mark.parametrize("value", [b"bytes", datetime.timedelta(1), float("nan")])
def test_a_value_that_json_cannot_express_makes_a_bad_row(tmp_path: Path, value: Any) -> None:
    (bad,) = read_parquet(write(tmp_path / "a.parquet", [{"a": value}]))
    assert isinstance(bad, BadRow) and (bad.reason, bad.line) == ("not_json", 1)


def test_a_row_that_is_too_long_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "MAX_ROW_BYTES", 100)
    bad, good = read_parquet(write(tmp_path / "a.parquet", [{"a": "x" * 200}, {"a": "x"}]))
    assert isinstance(bad, BadRow) and bad.reason == "line_too_long" and isinstance(good, Row)


def test_a_group_beyond_200_to_1_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [{"a": "x" * 4_000_000}], compression="zstd")
    assert len(list(read_parquet(path))) == 1
    monkeypatch.setattr(parquet_rows, "SLACK_BYTES", 0)
    with pytest.raises(DataError, match="about 200 times the file"):
        list(read_parquet(path))


def test_a_damaged_file_ends_with_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 not")
    (bad,) = rows_of(path)
    assert isinstance(bad, BadRow) and (bad.reason, bad.line) == ("damaged_parquet", 1)
