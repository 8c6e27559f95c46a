"""Verdicts in the reports of test harnesses count for the runs next to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.sources.resources import is_resource
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.data_tools.sources.swe.report_contents import verdicts_of_report
from acc_megatron.errors import Dropped

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
        ({"ids_resolved": [ID], "ids_unresolved": [OTHER], "resolved": 1}, {ID: True, OTHER: False}),
        ({"resolved": [ID], "stats": {"resolved": 1}}, {ID: True, "*": False}),
        ({"resolved": [], "stats": {"resolved": 0}}, {"*": False}),
        ({"resolved_ids": [], "error_ids": [ID], "empty_patch_ids": [OTHER]}, {ID: False, OTHER: False}),
        ({ID: {"resolved": True, "patch_exists": True}, OTHER: {"resolved": False}}, {ID: True, OTHER: False}),
        ({"patch_exists": True, "resolved": False}, {"": False}),
        ({ID: {"status": "RESOLVED_NO"}, OTHER: {"tests_passed": True}}, {ID: False, OTHER: True}),
        ({ID: "resolved", OTHER: False, "total": 2, "ok": True}, {ID: True, OTHER: False}),
        (
            [{"instance_id": ID, "resolved": True}, {"instance_id": OTHER, "report": {"resolved": "no"}}],
            {ID: True, OTHER: False},
        ),
        ({"model": "m", "results": [{"instance_id": ID, "resolved": 0}]}, {ID: False}),
        ({"model": "m", "instances": {ID: {"resolved": True}}}, {ID: True}),
        ({"verifier_result": {"rewards": {"reward": 0.5}}}, {"": False}),
        ({"agent_class": "X", "llm_config": {"model": "m"}}, {}),
        (RUN | {"resolved": True}, {}),
        ({"0": RUN | {"resolved": True}}, {}),
        ([{"resolved": True}], {}),
        ({"success": False, "seconds": 3}, {"": False}),
        ({"status": "unresolved"}, {"": False}),
        ({"status": "success", "score": 0.4, "accuracy": 0.0}, {}),
        ([{"instance_id": ID, "passed": False}], {ID: False}),
        ([{"instance_id": ID, "passed": False, "text": "a run " * 100}], {}),
    ],
)
def test_every_usual_form_of_a_report_is_read(report: Any, expected: dict[str, bool]) -> None:
    assert verdicts_of_report(report) == expected


@pytest.mark.parametrize(
    "name",
    ["report.json", "final_report.json", "results.json", "verdict.json", "lite_results.json", "model.run_1.json"],
)
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
    runs = [
        write(tmp_path / "output" / name / ID / f"{ID}.traj.json", RUN) for name in ("first", "second_eval", "third")
    ]
    write(tmp_path / "model-1.5.first.json", {"resolved_instances": 1, "resolved_ids": [ID]})
    write(
        tmp_path / "model-1.5.second_eval.json", {"resolved_instances": 0, "unresolved_ids": [ID], "resolved_ids": []}
    )
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(run), ID) for run in runs] == [True, False, None]


def test_a_report_in_the_folder_of_the_run_that_it_names_is_not_about_others(tmp_path: Path) -> None:
    runs = [write(tmp_path / name / ID / f"{ID}.traj.json", RUN) for name in ("a/x", "b")]
    summary = {"resolved_instances": 1, "resolved_ids": [ID]}
    write(tmp_path / "first" / "model.first.json", summary)
    verdict = discover([tmp_path]).resources.reports.verdict
    assert [verdict(str(run), ID) for run in runs] == [None, None]
    write(tmp_path / "first" / "model.first.json", {"resolved_instances": 0, "resolved_ids": []})
    write(tmp_path / "evaluation" / "model.second.json", summary)
    assert discover([tmp_path]).resources.reports.verdict(str(runs[1]), ID) is True


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


def test_a_report_that_lists_only_the_resolved_runs_says_that_the_others_below_it_are_not(tmp_path: Path) -> None:
    runs = [write(tmp_path / name / "a.traj", RUN) for name in ("one", "two")]
    write(tmp_path / "one" / "final_report.json", {"stats": {"generated": 9, "resolved": 1}, "resolved": [ID]})
    reports = discover([tmp_path]).resources.reports
    assert [reports.verdict(str(runs[0]), id_) for id_ in (ID, OTHER, "")] == [True, False, None]
    assert reports.verdict(str(runs[1]), OTHER) is None


def test_a_verdict_without_an_id_is_about_the_instance_that_its_folder_is_named_after(tmp_path: Path) -> None:
    run = write(tmp_path / "trajs" / "a.traj", RUN)
    write(tmp_path / "logs" / ID / "report.json", {"patch_exists": True, "resolved": True})
    verdict = discover([tmp_path]).resources.reports.verdict
    assert verdict(str(run), ID) is True and verdict(str(run), OTHER) is None


@pytest.mark.parametrize("ending", ["report", "result", "eval"])
def test_a_verdict_in_a_file_named_after_a_run_is_about_this_run_only(tmp_path: Path, ending: str) -> None:
    runs = [write(tmp_path / f"{name}.traj", RUN) for name in ("a", "b", "c")]
    write(tmp_path / f"a.{ending}.json", {"resolved": True})
    write(tmp_path / f"b_{ending}.json", {"resolved": False})
    verdict = discover([tmp_path]).resources.reports.verdict
    assert [verdict(str(run), id_) for run, id_ in zip(runs, ("", ID, ""), strict=True)] == [True, False, None]


def test_rows_with_an_instance_and_a_verdict_judge_the_runs_next_to_them(tmp_path: Path) -> None:
    run = write(tmp_path / "output.jsonl", RUN | {"instance_id": ID})
    rows = [
        {"instance_id": ID, "test_result": {"report": {"resolved": False}}},
        {"instance_id": OTHER, "resolved": True, "model_patch": "--- a/x"},
        {"org": "own", "repo": "tool", "number": 12, "fix_patch": "--- a/x"},
    ]
    (tmp_path / "output.swebench_eval.jsonl").write_text("\n".join(map(json.dumps, rows)))
    verdict = discover([tmp_path]).resources.reports.verdict
    assert (verdict(str(run), ID), verdict(str(run), OTHER)) == (False, True)
    assert verdict(str(run), OTHER, "--- a/y") is None
    assert all(map(is_resource, rows))
    tree = {"root": {"node_id": 0, "children": []}}
    for run in (tree, {"rollout": [{"role": "user"}]}):
        assert not any(is_resource(row | run) for row in rows)


def test_the_ids_of_multi_swe_bench_are_those_of_its_runs(tmp_path: Path) -> None:
    run = write(tmp_path / "output.jsonl", RUN | {"instance_id": "ponylang__ponyc-4595"})
    write(tmp_path / "final_report.json", {"resolved_ids": ["ponylang/ponyc:pr-4595"], "unresolved_ids": []})
    assert discover([tmp_path]).resources.reports.verdict(str(run), "ponylang__ponyc-4595") is True


@pytest.mark.parametrize("name", [f"{ID}.traj", f"{ID}/run.json", "old.traj"])
def test_a_run_is_judged_by_the_report_on_the_instance_in_its_files_name(tmp_path: Path, name: str) -> None:
    value = RUN | ({"environment": ID} if name == "old.traj" else {"environment": "swe_main"})
    run = write(tmp_path / name, value)
    write(tmp_path / "results.json", {"resolved": [], "generated": [ID]})
    row = Row(value=value, file=str(run), line=1, byte_offset=0, sha256="ab" * 32)
    with pytest.raises(Dropped, match="unresolved"):
        SweAgent().read_run(row, discover([tmp_path]).resources)
