"""`acc-megatron bench plan` on two of its runs."""

import csv
from pathlib import Path

import pytest

from acc_megatron.bench import plan as bench
from acc_megatron.bench.plan_cases import CASES


@pytest.mark.slow
@pytest.mark.distributed
def test_every_run_has_a_measured_and_a_predicted_step(tmp_path: Path) -> None:
    result = bench.bench_plan(
        num_steps=1, calibration_seconds=0, csv_file=tmp_path / "plan.csv", say=lambda line: None, worlds=(1,)
    )
    expected = [case for case in CASES if case.world == 1]
    assert [row["case"] for row in result["cases"]] == [case.name for case in expected]
    for row in result["cases"]:
        assert row["measured_seconds"] > 0 and row["predicted_seconds"] > 0
        assert row["error"] == pytest.approx(row["predicted_seconds"] / row["measured_seconds"] - 1)
    with (tmp_path / "plan.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(expected)
