"""Warnings of libraries go to a file of the run, each once, and not to the screen."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from acc_megatron.observe.library_warnings import LibraryWarnings


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> LibraryWarnings:
    taken = LibraryWarnings()
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    warnings.simplefilter("always")
    taken.install()
    return taken


def test_warnings_before_and_after_the_file_is_known_are_in_it_once(
    taken_over: LibraryWarnings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "warnings" / "rank_00000.log"
    logger = logging.getLogger("megatron.core.some_module")
    for _ in range(2):
        warnings.warn("Apex is not\ninstalled", stacklevel=1)
        logger.warning("no %s here", "kernel")
    taken_over.write_to(file)
    for _ in range(2):
        warnings.warn("late", DeprecationWarning, stacklevel=1)
        logger.warning("no %s here", "kernel")
    lines = file.read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("UserWarning ") and lines[0].endswith("Apex is not installed")
    assert lines[1] == "WARNING megatron.core.some_module: no kernel here"
    assert lines[2].startswith("DeprecationWarning ") and lines[2].endswith("late")
    assert capfd.readouterr() == ("", "")


def test_a_user_who_asks_for_warnings_sees_them() -> None:
    code = (
        "import warnings\nfrom acc_megatron.observe.library_warnings import LIBRARY_WARNINGS\n"
        "LIBRARY_WARNINGS.install()\nwarnings.warn('seen')"
    )
    for options, is_seen in (([], False), (["-W", "default"], True)):
        done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60)
        assert ("seen" in done.stderr) is is_seen
