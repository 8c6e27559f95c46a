"""SWE-smith's instances have the patch that makes the bug: files and answer are those of its repair."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.data_tools.sources.swe.bug_patch import makes_bug
from acc_megatron.data_tools.sources.swe.unified_diff import apply_patch
from acc_megatron.errors import Dropped

GOOD = "import os\n\n\ndef add(a, b):\n    return a + b\n\n\nlast = 1\n"
BUGGY = GOOD.replace("a + b", "a - b")
BUG = (
    "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -2,6 +2,6 @@\n \n \n def add(a, b):\n"
    "-    return a + b\n+    return a - b\n \n \n"
)
ID = "own__tool.1234abcd.func_x__1"
INSTANCE = {
    "instance_id": ID,
    "repo": "swesmith/own__tool.1234abcd",
    "patch": BUG,
    "problem_statement": "It subtracts.",
}
STEPS = [{"thought": "I look.", "action": "cat pkg/b.py", "observation": "b"}]
RUN = {"instance_id": ID, "trajectory": STEPS, "info": {"exit_status": "submitted"}, "resolved": True}


def read(tmp_path: Path, text: str, **instance: Any) -> Any:
    rows = [INSTANCE | instance | {"files_at_base_commit": {"pkg/a.py": text, "pkg/b.py": "b\n"}}]
    (tmp_path / "instances.json").write_text(json.dumps(rows))
    (tmp_path / "run.jsonl").write_text(json.dumps(RUN))
    resources = discover([tmp_path / "run.jsonl"], [tmp_path / "instances.json"]).resources
    row = Row(value=RUN, file=str(tmp_path / "run.jsonl"), line=1, byte_offset=0, sha256="ab" * 32)
    return SweAgent().read(row, resources)


@pytest.mark.parametrize("text", [GOOD, BUGGY])
def test_the_answer_removes_the_bug_from_files_that_have_it(tmp_path: Path, text: str) -> None:
    run = read(tmp_path, text)
    assert [(piece.id, piece.text) for piece in run.evidence] == [("pkg/a.py", BUGGY)]
    assert apply_patch(run.answer, {"pkg/a.py": BUGGY}) == {"pkg/a.py": GOOD} and run.ground_truth == run.answer
    assert [piece.id for piece in run.distractors] == ["pkg/b.py"]


def test_other_instances_keep_their_patch_and_other_files_are_refused(tmp_path: Path) -> None:
    other = read(tmp_path, GOOD, repo="own/tool")
    assert other.answer == BUG.strip("\n") and other.evidence[0].text == GOOD
    with pytest.raises(Dropped, match="bug_patch_does_not_apply"):
        read(tmp_path, "something else\n")
    assert makes_bug({"image_name": "jyangballin/swesmith.x86_64.own__tool.1234abcd"}) and not makes_bug({"repo": None})
