"""A SWE run gives the complete files of the gold patch at the base commit, for the right instance or none."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.common.json_rows import Row, read_json
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe import reader as swe
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.data_tools.sources.swe.opened_paths import opened_files
from acc_megatron.data_tools.sources.swe.steps import steps_of
from acc_megatron.data_tools.sources.swe.unified_diff import apply_patch
from acc_megatron.errors import Dropped

DATA = SHARED_DATA / "swe"
PATCH = """diff --git a/lib/a.py b/lib/a.py
--- a/lib/a.py
+++ b/lib/a.py
@@ -1,2 +1,2 @@
--- a/not/a/header.py
+++ b/not/a/header.py
 x
diff --git a/lib/new.py b/lib/new.py
new file mode 100644
--- /dev/null
+++ b/lib/new.py
@@ -0,0 +1 @@
+y
"""
INSTANCE: dict[str, Any] = {
    "instance_id": "own__tool-12",
    "repo": "own/tool",
    "problem_statement": "Adding fails\nIt should add.",
    "patch": PATCH,
    "files_at_base_commit": {"lib/a.py": "whole a\n", "lib/b.py": "whole b\n"},
}


def resources(tmp_path: Path, *instances: dict[str, Any]) -> Resources:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(instances or [INSTANCE]))
    found = Resources()
    found.add_rows(path, keep_bad_rows=True)
    return found


def step(opened: str = "", thought: str = "", folder: str = "/own__tool") -> dict[str, Any]:
    observation = f"[File: {opened} (9 lines total)]\n1:x" if opened else "done"
    state = json.dumps({"open_file": "n/a", "working_dir": folder})
    return {"action": "do", "observation": observation, "thought": thought, "state": state}


def run(*steps: dict[str, Any], file: str = "own__tool-12.traj", **changes: Any) -> Row:
    steps = steps or (step("/own__tool/lib/a.py", "I look."), step(thought="I fix it."))
    value = {"trajectory": list(steps), "history": [], "info": {"exit_status": "submitted"}} | changes
    return Row(value=value, file=file, line=1, byte_offset=0, sha256="ef" * 32)


def read(row: Row, found: Resources) -> Trajectory:
    assert SweAgent().recognises(row.value)
    return swe.read(row, found)


def reason(row: Row, found: Resources) -> str:
    with pytest.raises(Dropped) as dropped:
        read(row, found)
    return dropped.value.reason


def test_complete_patched_files_are_evidence_and_opened_files_are_distractors(tmp_path: Path) -> None:
    steps = [step("/own__tool/lib/b.py"), step("/own__tool/lib/a.py"), step("lib/b.py"), step("/own__tool/made.py")]
    trajectory = read(run(*steps), resources(tmp_path))
    assert [(piece.id, piece.text) for piece in trajectory.evidence] == [("lib/a.py", "whole a\n")]
    assert [(piece.id, piece.text) for piece in trajectory.distractors] == [("lib/b.py", "whole b\n")]
    assert trajectory.notes["opened_not_at_base_commit"] == ["made.py"]


def test_question_answer_and_reasoning(tmp_path: Path) -> None:
    trajectory = read(run(), resources(tmp_path))
    assert trajectory.question == f"Adding fails\nIt should add.\n\n{swe.REQUEST}"
    assert trajectory.answer == trajectory.ground_truth == PATCH.strip("\n")
    assert (trajectory.reasoning, trajectory.reasoning_source) == ("I look.\n\nI fix it.", "agent")


@pytest.mark.parametrize("path", ["/own__tool/lib/b.py", "/swe-bench__x/lib/b.py", "/testbed/lib/b.py", "lib/b.py"])
def test_every_spelling_of_a_path_is_the_same_file(path: str) -> None:
    assert opened_files(steps_of({"trajectory": [step(path)]})) == ["lib/b.py"]


def test_terminal_control_characters_are_removed_and_the_newer_viewer_is_read() -> None:
    noisy = {"observation": "|\b/\b[File: lib/b.py\r (9 lines total)\r]\r\n"}
    newer = {"observation": "Here's the result of running `cat -n` on /testbed/lib/c.py:\n1 x"}
    steps = steps_of({"trajectory": [noisy, newer, {"observation": None}]})
    assert opened_files(steps) == ["lib/b.py", "lib/c.py"]


def test_the_files_of_a_patch_are_its_old_files() -> None:
    renamed = "diff --git a/x.py b/y.py\nsimilarity index 100%\nrename from x.py\nrename to y.py\n"
    assert swe.patched_files(PATCH + renamed) == ["lib/a.py", "x.py"]


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_id": "own__tool-12"},
        {"environment": "own__tool-12"},
        {"info": {"instance_id": "own__tool-12"}},
        {"replay_config": json.dumps({"problem_statement": {"id": "own__tool-12"}})},
        {"replay_config": {"problem_statement": {"id": "own__tool-12"}}},
        {"file": "runs/own__tool-12/own__tool-12.traj"},
        {"file": "runs/own__tool-12/run.traj"},
        {"file": "tool-12.default__t-0.2.traj"},
        {"history": [{"role": "user", "content": "ISSUE:\nAdding  fails\nIt should add.\n\nINSTRUCTIONS"}]},
    ],
)
def test_the_instance_is_found_by_each_sign(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read(run(**({"file": "run.traj"} | changes)), resources(tmp_path)).notes["instance_id"] == "own__tool-12"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"file": "tool-123.traj"},
        {"file": "mytool-12x/other-tool-12.traj"},
        {"history": [{"role": "user", "is_demo": True, "content": "Adding fails\nIt should add."}]},
        {"history": [{"role": "user", "content": "Adding fails\nbut another way"}]},
        {"replay_config": {"agent": {"demonstrations": ["own__tool-12"]}}},
        {"replay_config": "[" * 100_000},
        {"environment": ["own__tool-12"]},
        {"instance_id": "own__tool-9", "file": "own__tool-12.traj"},
    ],
)
def test_signs_of_another_task_are_not_used(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert reason(run(**({"file": "run.traj"} | changes)), resources(tmp_path)) == "no_instance_row"


def test_an_instance_of_another_repository_is_never_used(tmp_path: Path) -> None:
    row = run(step(folder="/else__tool"), file="tool-12.traj")
    assert reason(row, resources(tmp_path)) == "no_instance_row"


def test_two_matching_instances_are_ambiguous(tmp_path: Path) -> None:
    row = run(step(folder="/testbed"), file="tool-12.traj")
    other = INSTANCE | {"instance_id": "else__tool-12"}
    assert reason(row, resources(tmp_path, INSTANCE, other)) == "ambiguous_instance"


@pytest.mark.parametrize(
    ("run_changes", "instance_changes", "expected"),
    [
        ({}, {"resolved": False}, "unresolved"),
        ({"info": {"resolved": False}}, {}, "unresolved"),
        ({"info": {"exit_status": "exit_cost"}}, {}, "unresolved"),
        ({"exit_status": "exit_context"}, {}, "unresolved"),
        ({"resolved": "False"}, {}, "unresolved"),
        ({"reward": 0.0}, {}, "unresolved"),
        ({"reward": -1}, {}, "unresolved"),
        ({"success": False}, {}, "unresolved"),
        ({"score": 0.5}, {}, "unresolved"),
        ({"info": {"reward": 0}}, {}, "unresolved"),
        ({"resolved": True, "reward": 0.0}, {}, "unresolved"),
        ({"test_result": {"resolved": "false"}}, {}, "unresolved"),
        ({}, {"patch": "\n"}, "no_gold_patch"),
        ({}, {"files_at_base_commit": {}}, "no_files"),
        ({}, {"files_at_base_commit": {"lib/b.py": "b"}}, "gold_file_missing"),
        ({}, {"patch": "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+y"}, "no_evidence"),
        ({}, {"problem_statement": None}, "malformed"),
        ({"trajectory": None}, {}, "no_trajectory"),
        ({"trajectory": [{"observation": "x"}, 3]}, {}, "malformed"),
    ],
)
def test_a_run_that_cannot_be_used_is_dropped_with_a_reason(
    tmp_path: Path, run_changes: dict[str, Any], instance_changes: dict[str, Any], expected: str
) -> None:
    assert reason(run(**run_changes), resources(tmp_path, INSTANCE | instance_changes)) == expected


@pytest.mark.parametrize(
    "verdict",
    [{"resolved": True}, {"resolved": "True"}, {"reward": 1.0}, {"success": True}, {"target": True}, {"score": 1}],
)
def test_a_verdict_under_any_usual_key_verifies_the_run(tmp_path: Path, verdict: dict[str, Any]) -> None:
    trajectory = read(run(**verdict), resources(tmp_path))
    assert trajectory.is_judged and trajectory.notes["run_verified"] is True


@pytest.mark.parametrize("verdict", [{}, {"resolved": -1}, {"reward": None}, {"resolved": "unknown"}])
def test_a_run_without_a_verdict_is_not_judged(tmp_path: Path, verdict: dict[str, Any]) -> None:
    assert not read(run(**verdict), resources(tmp_path)).is_judged


def test_the_patch_of_a_file_with_carriage_returns_still_applies_to_it(tmp_path: Path) -> None:
    patch = "--- a/lib/a.py\n+++ b/lib/a.py\n@@ -1,2 +1,2 @@\n-old\r\n+new\r\n last\r\n"
    files = {"lib/a.py": "old\r\nlast\r\n"}
    trajectory = read(run(), resources(tmp_path, INSTANCE | {"patch": patch, "files_at_base_commit": files}))
    assert apply_patch(trajectory.answer, files) == {"lib/a.py": "new\r\nlast\r\n"}


def test_a_run_without_thoughts_has_the_reasoning_source_none(tmp_path: Path) -> None:
    trajectory = read(run(step("lib/a.py")), resources(tmp_path))
    assert (trajectory.reasoning, trajectory.reasoning_source) == ("", "none")


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_every_real_run_with_an_instance_compiles_and_the_others_have_a_reason() -> None:
    found = discover([DATA])
    results: dict[tuple[str, int], str] = {}
    for path in found.files:
        for row in read_json(path) if path.suffix == ".traj" else []:
            assert isinstance(row, Row)
            try:
                trajectory = read(row, found.resources)
                results[path.name[:16], len(results)] = trajectory.notes["instance_id"]
            except Dropped as dropped:
                results[path.name[:16], len(results)] = dropped.reason
    values = list(results.values())
    assert values.count("marshmallow-code__marshmallow-1867") == 8
    assert values.count("pydicom__pydicom-1458") == 1
    assert values.count("no_instance_row") == 4, "including the run that has only a history"
    assert len(values) == 13
