"""The CSV files that benchmarks append their rows to, each row with time, machine and versions."""

import csv
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


def append_csv(path: Path, rows: list[dict[str, Any]], *, gpu: str = "") -> None:
    """Append rows, each with the time, the machine and the versions of the packages that were measured.

    Raises DataError if the file exists and has other columns.
    """
    common = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **machine(gpu=gpu)}
    columns = [*rows[0], *common]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or not path.stat().st_size
    if not is_new:
        with path.open(newline="", encoding="utf-8") as file:
            existing = next(csv.reader(file))
        if existing != columns:
            raise DataError(
                f"{path} has the columns {', '.join(existing)}, but the new rows have {', '.join(columns)}: "
                "name another file with --csv"
            )
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(row | common for row in rows)
