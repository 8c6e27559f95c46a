"""Selects the tests over Transformer Engine's Python, and prints their table of differences."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.engine.cases import Case
from support.engine.install import FOLDER

HERE = Path(__file__).parent
_ROWS = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip these tests unless their path was given and the wheel is installed, as in `make test-engine`."""
    is_selected = any(Path(argument.partition("::")[0]).resolve().is_relative_to(HERE) for argument in config.args)
    is_installed = (FOLDER / "transformer_engine").is_dir()
    skipped = pytest.mark.skip(reason="runs in make test-engine, which installs Transformer Engine's Python")
    for item in items:
        if item.path.is_relative_to(HERE) and not (is_selected and is_installed):
            item.add_marker(skipped)


@pytest.fixture
def add_row(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Adds a row to the table of differences at the end of the output."""

    def add(case: Case, loss: float | None, gradient: float | None, *, is_norm: bool = False) -> None:
        columns = ["failed" if loss is None else f"{loss:.1e}", "" if gradient is None else f"{gradient:.1e}"]
        row = f"| {case.name} | {case.world} | {' | '.join(columns)}{' (norm)' if is_norm else ''} |"
        pytestconfig.stash.setdefault(_ROWS, []).append(row)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of differences as Markdown."""
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("Transformer Engine's spec against the CPU spec")
        header = "| case | processes | largest loss difference | largest relative gradient difference |"
        terminalreporter.write_line("\n".join([header, "|---|---|---|---|", *rows]))
