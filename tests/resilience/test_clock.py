"""No decision of a run looks at a clock that can be set."""

import ast
from pathlib import Path

import pytest
from commands import ROOT

DECIDING = [*sorted((ROOT / "acc_megatron" / "resilience").glob("*.py"))]
DECIDING += [ROOT / "acc_megatron" / name for name in ("train.py", "step.py", "resume.py", "trainer.py")]
SETTABLE = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "time.localtime"}


@pytest.mark.parametrize("path", DECIDING, ids=lambda path: path.name)
def test_time_is_measured_on_a_clock_that_cannot_jump(path: Path) -> None:
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not SETTABLE & set(calls)
