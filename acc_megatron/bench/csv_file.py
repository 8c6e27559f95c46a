"""The CSV files that benchmarks append their rows to, each row with time, machine and versions."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

from acc_megatron.common.this_machine import machine
from acc_megatron.errors import DataError


def check_writable(path: Path) -> None:
    """Raise OSError or DataError, before anything is measured, if a benchmark could not write to `path` at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the name of a file")
    exists = path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if not exists:
        path.unlink()


def append_csv(path: Path, rows: list[dict[str, Any]], *, gpu: str = "") -> Path:
    """Append rows, each with the time, the machine and the versions of the packages that were measured.

    A file with other columns stays as it is: the rows go to the next name (data_2.csv), which is told on stderr.
    Returns the file that has the rows.
    """
    common = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **machine(gpu=gpu)}
    columns = [*rows[0], *common]
    path.parent.mkdir(parents=True, exist_ok=True)
    names = (path, *(path.with_stem(f"{path.stem}_{number}") for number in range(2, 1000)))
    chosen = next(name for name in names if _columns(name) in (None, columns))
    if chosen != path:
        print(f"{path} has other columns, so the rows are in {chosen}", file=sys.stderr)
    is_new = _columns(chosen) is None
    with chosen.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(row | common for row in rows)
    return chosen


def _columns(path: Path) -> list[str] | None:
    """The column names in the first line of a file; None if the file does not exist or is empty."""
    if not path.is_file() or not path.stat().st_size:
        return None
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader(file), [])
