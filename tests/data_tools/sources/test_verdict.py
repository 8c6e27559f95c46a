"""Verdicts are read from the keys, words and places in which rows and harnesses state them."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.verdict import says_failed, says_succeeded

FAILED: list[dict[str, Any]] = [
    {"reward": 0.0}, {"success": False}, {"resolved": "False"}, {"resolved": 0}, {"reward": "0.0"}, {"score": 0.5},
    {"status": "failed"}, {"outcome": "Failure"}, {"passed": "no"}, {"is_resolved": False}, {"reward": -1},
    {"info": {"resolved": False}}, {"metadata": {"reward": 0}}, {"test_result": {"report": {"resolved": False}}},
    {"evaluation": {"correct": False}}, {"resolved": True, "reward": 0}, {"verdict": "incorrect"},
    {"resolved": "RESOLVED_NO"}, {"resolution_status": "RESOLVED_PARTIAL"}, {"status": "RESOLVED_NO"},
    {"eval_report": {"resolved": False}}, {"llm_judge": {"correct": False}}, {"judge_result": "Incorrect"},
    {"auto_judge": {"correctness": "no"}}, {"tests_passed": False}, {"allTestsPassed": False}, {"isCorrect": False},
    {"label_correct": 0}, {"eval_status": "fail"}, {"final_status": "failed"}, {"grade": "INCORRECT"},
    {"reward": {"score": 0.0}}, {"report": '{"resolved": false}'}, {"accuracy": 0.0}, {"pass_rate": 0},
    {"report": {"a__b-1": {"tests_status": {"FAIL_TO_PASS": {"success": [], "failure": ["t"]}}}}},
    {"failed": True}, {"is_unresolved": "True"}, {"metadata": {"incorrect": True}},
    {"tests_status": {"FAIL_TO_PASS": {"success": ["t"]}, "PASS_TO_PASS": {"failure": ["u"]}}},
]  # fmt: skip
# places and spellings whose words say that they judge the run
FAILED += [
    {"eval": {"status": "FAIL"}}, {"evaluation_results": {"resolved": False}}, {"verification": {"passed": False}},
    {"verifier": {"reward": 0}}, {"grading": {"correct": "no"}}, {"annotations": {"resolved": False}},
    {"extra": {"resolved": False}}, {"evals": {"swebench_result": {"resolved": False}}}, {"did_succeed": False},
    {"harnessResult": {"isResolved": False}}, {"test_results": {"status": "failed"}}, {"reward_info": {"reward": 0}},
    {"pass@1": 0.0}, {"metrics": {"pass_at_1": 0}}, {"judge": {"verdict": "incorrect"}}, {"passes": False},
    {"completed_successfully": False}, {"FAIL_TO_PASS": {"success": [], "failure": ["t"]}},
]  # fmt: skip
PASSED: list[dict[str, Any]] = [
    {"reward": 1}, {"resolved": "True"}, {"score": "1.0"}, {"status": "resolved"}, {"info": {"success": True}},
    {"resolved": "RESOLVED_FULL"}, {"eval_report": {"resolved": True}}, {"tests_passed": True}, {"accuracy": 1.0},
    {"reward": {"score": 1.0}}, {"report": '{"resolved": true}'},
    {"tests_status": {"FAIL_TO_PASS": {"success": ["t"], "failure": []}, "PASS_TO_PASS": {"failure": []}}},
]  # fmt: skip
PASSED += [{"eval": {"outcome": "PASS"}}, {"verifier": {"reward": 1.0}}, {"metrics": {"pass@1": 1}}]
UNJUDGED: list[dict[str, Any]] = [
    {}, {"resolved": -1}, {"status": "completed"}, {"result": "2"}, {"correct": "5"}, {"metadata": {"score": 0.4}},
    {"reward": None}, {"resolved": ["a__b-1"]}, {"outcome": 7},
    {"tests_passed": 1}, {"passed": 12}, {"accuracy": 0.5}, {"pass_rate": 0.25}, {"status": {"code": 200}},
    {"first_passage": 0}, {"correct_answer": 0}, {"report": "{broken"}, {"grade": "C"},
    {"failed": False}, {"failed": 0}, {"failed": ["t"]}, {"result": {"status": "success"}}, {"pass@1": 0.3},
    {"info": {"status": "failed"}}, {"FAIL_TO_PASS": ["t"]}, {"evaluation": {"score": 0.2}}, {"tests": {"passed": 0}},
]  # fmt: skip


@pytest.mark.parametrize("row", FAILED)
def test_a_row_that_says_failed_failed(row: dict[str, Any]) -> None:
    assert says_failed(row) and not says_succeeded(row)


@pytest.mark.parametrize("row", PASSED)
def test_a_row_that_says_passed_passed(row: dict[str, Any]) -> None:
    assert says_succeeded(row) and not says_failed(row)


@pytest.mark.parametrize("row", UNJUDGED)
def test_other_values_are_no_verdict(row: dict[str, Any]) -> None:
    assert not says_succeeded(row) and not says_failed(row)
