"""Every kernel against float64 through the repaired interpreter: runs `interpreted/` in a process that interprets."""

import sys
from pathlib import Path

import pytest
from commands import run_command

FOLDER = Path(__file__).parent / "interpreted"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("check_*.py")))
def test_the_kernels_hold_in_the_interpreter(name: str) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(FOLDER / name)]
    done = run_command(command, timeout=600, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-6000:]
