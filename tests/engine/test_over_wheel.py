"""Emulated functions that take objects of the wheel: runs `over_wheel/` in a process that imports it."""

import sys
from pathlib import Path

import pytest
from support.commands import run_command

FOLDER = Path(__file__).parent / "over_wheel"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("check_*.py")))
def test_the_functions_hold_over_the_wheel(name: str) -> None:
    done = run_command([sys.executable, "-m", "pytest", "-q", str(FOLDER / name)], timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
