"""Runs on Multi-SWE-bench are joined with its own rows."""

import json
from pathlib import Path

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.sources.resources import is_resource
from acc_megatron.data_tools.sources.swe.agent import SweAgent

PATCH = "diff --git a/pkg/a.c b/pkg/a.c\n--- a/pkg/a.c\n+++ b/pkg/a.c\n@@ -1 +1 @@\n-int a = 1;\n+int a = 2;"
INSTANCE = {
    "org": "own", "repo": "tool", "number": 12, "title": "Fix", "body": "", "base": {"ref": "main", "sha": "0" * 40},
    "resolved_issues": [{"number": 9, "title": "a is wrong", "body": "It should be 2."}], "fix_patch": PATCH,
}  # fmt: skip
STORE = {"instance_id": "own__tool-12", "files_at_base_commit": {"pkg/a.c": "int a = 1;\n"}}
RUN = {"instance_id": "own__tool-12", "trajectory": [{"thought": "I look.", "action": "ls", "observation": "pkg"}]}


@pytest.mark.parametrize("name", ["instances.json", "instances.jsonl"])
def test_a_pull_request_is_an_instance(tmp_path: Path, name: str) -> None:
    rows = [INSTANCE, STORE]
    text = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    (tmp_path / "run.jsonl").write_text(json.dumps(RUN))
    resources = discover([tmp_path]).resources
    row = Row(value=RUN, file=str(tmp_path / "run.jsonl"), line=1, byte_offset=0, sha256="ab" * 32)
    run = SweAgent().read(row, resources)
    assert run.question.startswith("a is wrong\n\nIt should be 2.\n\nWrite the patch")
    assert (run.answer, run.notes["repo"], run.notes["base_commit"]) == (PATCH, "own/tool", "0" * 40)
    assert [piece.id for piece in run.evidence] == ["pkg/a.c"] and is_resource(INSTANCE)
