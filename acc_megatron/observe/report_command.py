"""The verb `report`: a page or text about one folder or several runs, once or again whenever a run logs a step."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.observe.metrics import STEPS_FILE
from acc_megatron.observe.report import comparison_lines, make_report, report_lines, write_comparison, write_report
from acc_megatron.observe.run_comparison import compare_runs, run_folder
from acc_megatron.observe.watch import REFRESH_SECONDS, watch

CLEAR_SCREEN = "\x1b[2J\x1b[H"


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What the user asks for."""

    folders: list[Path]
    out: Path | None = None
    compiled: Path | None = None
    as_text: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.as_text and (self.out or self.as_json):
            raise ConfigError("--text prints the report: leave out --out and --json")
        if len(self.folders) > 1 and self.compiled:
            raise ConfigError("--compiled belongs to the report of one dataset, not to a comparison of runs")

    def print_text(self) -> None:
        """Print the report."""
        if len(self.folders) > 1:
            lines = comparison_lines(compare_runs(self.folders))
        else:
            lines = report_lines(make_report(self.folders[0], self.compiled))
        print("\n".join(lines), flush=True)

    def write(self, *, refresh_seconds: int | None = None) -> Path:
        """Write the page; returns its path."""
        if len(self.folders) > 1:
            return write_comparison(self.folders, self.out, refresh_seconds=refresh_seconds)
        return write_report(self.folders[0], self.out, self.compiled, refresh_seconds=refresh_seconds)


def run_report(request: ReportRequest, *, watch: bool) -> None:
    """Write the page and print its path, or print the text; with `watch`, until the user presses Ctrl-C."""
    if watch:
        _watch(request)
    elif request.as_text:
        request.print_text()
        return
    page = None if request.as_text else request.write()
    if page is not None:
        print(json.dumps({"page": str(page)}) if request.as_json else page)


def _watch(request: ReportRequest) -> None:
    files = []
    for folder in request.folders:
        found = run_folder(folder)
        if found is None:
            raise DataError(f"--watch follows a training run, but {folder} has no {STEPS_FILE}")
        files.append(found / STEPS_FILE)
    is_first = True

    def update() -> None:
        nonlocal is_first
        if request.as_text:
            print(CLEAR_SCREEN if sys.stdout.isatty() else "" if is_first else "\n", end="")
            request.print_text()
        else:
            page = request.write(refresh_seconds=REFRESH_SECONDS)
            if is_first:
                print(f"{page} follows the run; Ctrl-C ends this", file=sys.stderr)
        is_first = False

    watch(files, update)
