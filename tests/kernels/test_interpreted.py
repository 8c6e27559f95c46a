"""Runs the tests of `interpreted/`, every kernel against float64, in processes with Triton's interpreter."""

import sys
from pathlib import Path

import pytest
from support.commands import run_command

FOLDER = Path(__file__).parent / "interpreted"


def run_interpreted(*arguments: str) -> None:
    pytest.importorskip("triton")
    done = run_command([sys.executable, "-m", "pytest", "-q", "-x", *arguments], timeout=900, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-6000:]


def test_the_kernels_are_as_exact_as_plain_torch_on_small_shapes() -> None:
    files = sorted(str(path) for path in FOLDER.glob("check_*.py"))
    assert len(files) == 3
    run_interpreted("-m", "not slow", *files)


@pytest.mark.long
@pytest.mark.slow
def test_the_tests_for_a_gpu_pass_in_the_interpreter_on_small_cases() -> None:
    run_interpreted(str(FOLDER.parents[1] / "gpu"))


@pytest.mark.long
@pytest.mark.slow
def test_the_kernels_are_as_exact_as_plain_torch_on_large_shapes_and_two_ranks() -> None:
    run_interpreted("-m", "slow", str(FOLDER / "check_linear_kernels.py"))
