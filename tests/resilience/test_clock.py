"""No decision in training depends on a clock that can be changed."""

import ast
from pathlib import Path

import pytest
from support.commands import ROOT

SOURCES = [path for part in ("resilience", "training") for path in sorted((ROOT / "acc_megatron" / part).glob("*.py"))]
SETTABLE = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "time.localtime"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_time_is_measured_on_a_monotonic_clock(path: Path) -> None:
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not SETTABLE & set(calls)
