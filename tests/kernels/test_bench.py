"""The command `bench kernels` at a size of a second: its keys, its file, its drawing, its refusals."""

import csv
from pathlib import Path

import pytest
from commands import acc, good

SMALL = ("--tokens", "256", "--vocab", "512", "--hidden", "16", "--repeats", "2")


@pytest.mark.slow
def test_one_object_with_the_ratios_a_csv_and_a_plot(tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "rows.csv", "--plot", tmp_path / "rows.svg")
    result = good(acc("bench", "kernels", *SMALL, *files, "--json"))
    assert result["tokens"] == 256 and result["vocab"] == 512 and result["hidden"] == 16
    assert result["supervised_share"] == pytest.approx(0.04, abs=0.01)
    assert result["time_ratio_vs_plain"] > 0 and result["memory_ratio_vs_plain"] > 0
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["direction"] for row in rows} == {"forward", "backward", "both"}
    assert {"plain", "compact + plain", "ours, keep", "ours, recompute"} <= {row["implementation"] for row in rows}
    assert all(row["machine"] and row["torch"] and int(row["p20_us"]) <= int(row["p80_us"]) for row in rows)
    assert "<svg" in (tmp_path / "rows.svg").read_text()


@pytest.mark.slow
def test_at_four_percent_supervised_time_falls_15_times_and_memory_30_times() -> None:
    size = ("--tokens", "8192", "--vocab", "18992", "--hidden", "64", "--repeats", "1")
    result = good(acc("bench", "kernels", *size, "--json", timeout=600))
    best = {
        key: max(
            row[key]
            for row in result["rows"]
            if row["implementation"].startswith("ours") and row["direction"] == "both"
        )
        for key in ("time_ratio_vs_plain", "memory_ratio_vs_plain")
    }
    assert best["time_ratio_vs_plain"] >= 15 and best["memory_ratio_vs_plain"] >= 30, best


def test_an_unknown_dtype_is_refused() -> None:
    done = acc("bench", "kernels", *SMALL, "--dtype", "int8")
    assert done.returncode == 2 and "allowed: float32, bfloat16, float16" in done.stderr
