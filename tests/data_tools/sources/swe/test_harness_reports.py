"""Verdicts in the reports of test harnesses count for the runs next to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.sources.swe.harness_reports import verdicts_of_report

ID, OTHER = "own__tool-12", "own__tool-13"
SUMMARY = {
    "total_instances": 3,
    "resolved_instances": 1,
    "resolved_ids": [ID],
    "unresolved_ids": [OTHER],
    "incomplete_ids": ["c"],
}
RUN = {"trajectory": [{"action": "ls", "observation": "a", "thought": "t"}], "info": {"exit_status": "submitted"}}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (SUMMARY, {ID: True, OTHER: False}),
        ({"resolved": [ID], "generated": [ID, OTHER], "no_logs": ["x"]}, {ID: True, OTHER: False, "x": False}),
        ({"resolved_ids": [], "error_ids": [ID], "empty_patch_ids": [OTHER]}, {ID: False, OTHER: False}),
        ({ID: {"resolved": True, "patch_exists": True}, OTHER: {"resolved": False}}, {ID: True, OTHER: False}),
        ({"patch_exists": True, "resolved": False}, {"": False}),
        ({"agent_class": "X", "llm_config": {"model": "m"}}, {}),
        (RUN | {"resolved": True}, {}),
        ({"0": RUN | {"resolved": True}}, {}),
        ([{"resolved": True}], {}),
    ],
)
def test_every_usual_form_of_a_report_is_read(report: Any, expected: dict[str, bool]) -> None:
    assert verdicts_of_report(report) == expected


@pytest.mark.parametrize("name", ["report.json", "final_report.json", "results.json", "model.run_1.json"])
def test_a_report_in_the_folder_of_runs_or_above_it_counts_and_is_no_run(tmp_path: Path, name: str) -> None:
    run = write(tmp_path / "runs" / "trajs" / "a.traj", RUN)
    report = write(tmp_path / "runs" / name, SUMMARY)
    found = discover([tmp_path])
    assert found.files == (run,) and report in found.resource_files
    verdicts = [found.resources.reports.verdict(str(run), id_) for id_ in (ID, OTHER, "c")]
    assert verdicts == [True, False, None]


def test_a_report_next_to_a_named_file_counts(tmp_path: Path) -> None:
    run = write(tmp_path / "a.traj", RUN)
    write(tmp_path / "report.json", SUMMARY)
    assert discover([run]).resources.reports.verdict(str(run), OTHER) is False


def test_the_nearest_report_counts_and_other_reports_only_if_they_agree(tmp_path: Path) -> None:
    runs = [write(tmp_path / name / "a.traj", RUN) for name in ("one", "two", "three")]
    write(tmp_path / "one" / "report.json", {"resolved_ids": [ID]})
    write(tmp_path / "two" / "report.json", {"resolved_ids": [], "unresolved_ids": [ID, OTHER]})
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(run), ID) for run in runs] == [True, False, None]
    assert reports.verdict(str(write(tmp_path / "four" / "b.traj", RUN)), OTHER) is False


def test_a_report_above_a_run_of_the_same_file_name_is_not_about_another_run(tmp_path: Path) -> None:
    runs = [write(tmp_path / name / ID / f"{ID}.traj", RUN) for name in ("one", "two")]
    write(tmp_path / "one" / "report.json", {"resolved_ids": [ID]})
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(run), ID) for run in runs] == [True, None]


def test_a_report_in_a_folder_next_to_the_runs_counts_for_these_runs_only(tmp_path: Path) -> None:
    runs = [write(tmp_path / name / "trajs" / f"{ID}.traj", RUN) for name in ("one", "two")]
    write(tmp_path / "one" / "results" / "results.json", {"resolved": [ID]})
    write(tmp_path / "two" / "results" / "results.json", {"resolved": [], "generated": [ID]})
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(run), ID) for run in runs] == [True, False]


def test_of_reports_that_name_their_run_the_one_with_the_name_of_the_runs_folder_counts(tmp_path: Path) -> None:
    runs = [write(tmp_path / "output" / name / ID / f"{ID}.traj.json", RUN) for name in ("first", "second", "third")]
    write(tmp_path / "model-1.5.first.json", {"resolved_instances": 1, "resolved_ids": [ID]})
    write(tmp_path / "model-1.5.second.json", {"resolved_instances": 0, "unresolved_ids": [ID], "resolved_ids": []})
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(run), ID) for run in runs] == [True, False, None]


def test_a_report_next_to_a_tested_patch_is_about_the_run_that_made_this_patch(tmp_path: Path) -> None:
    run = write(tmp_path / "output" / "mine" / "a.traj", RUN)
    tested = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
    report = write(
        tmp_path / "logs" / "run_evaluation" / "any" / "model" / ID / "report.json", {ID: {"resolved": True}}
    )
    report.with_name("patch.diff").write_text(tested)
    verdict = discover([tmp_path]).resources.reports.verdict
    assert verdict(str(run), ID, tested.replace("\n", "\r\n")) is True
    assert verdict(str(run), ID, tested.replace("+b", "+c")) is None
    assert verdict(str(run), ID) is True  # the row does not state its patch


def test_a_verdict_without_an_id_is_about_the_runs_of_its_own_folder(tmp_path: Path) -> None:
    run = write(tmp_path / "one" / "a.traj", RUN)
    other = write(tmp_path / "two" / "a.traj", RUN)
    write(tmp_path / "one" / "report.json", {"patch_exists": True, "resolved": False})
    reports = discover([tmp_path]).resources.reports
    assert reports.verdict(str(run), ID) is False and reports.verdict(str(other), ID) is None
