"""One finding of the doctor, and findings as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "missing", "wrong", "unseen"]
COLOURS: dict[State, str] = {"ok": "green", "missing": "yellow", "wrong": "red", "unseen": "cyan"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The state of one thing; `unseen` could not be checked here, for the reason in `found`.

    A job cannot run while a `needed` finding is missing or wrong.
    """

    name: str
    state: State
    found: str
    effect: str = ""
    fix: str = ""
    needed: bool = False

    @property
    def stops_the_job(self) -> bool:
        """Whether the job cannot run before this is fixed."""
        return self.needed and self.state in ("missing", "wrong")

    @property
    def advice(self) -> str:
        """Effect and fix, if there is something to fix."""
        return "" if self.state == "ok" else "; ".join(filter(None, (self.effect, self.fix)))


def print_findings(findings: Sequence[Finding], as_json: bool) -> None:
    """A table on stdout and then what stops the job, or one JSON object."""
    stopping = [finding for finding in findings if finding.stops_the_job]
    if as_json:
        print(json.dumps({"can_run": not stopping, "findings": [asdict(finding) for finding in findings]}))
        return
    try:
        _print_table(findings)
    except ModuleNotFoundError:  # the doctor also runs where rich is missing
        for finding in findings:
            print(f"{finding.state:<8} {finding.name}: {'; '.join(filter(None, (finding.found, finding.advice)))}")
    for finding in stopping:
        print(": ".join(filter(None, ("cannot run", finding.name, finding.found, finding.fix))))
    if not stopping:
        print("the job can run here")


def _print_table(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("state", "checked", "found; effect; fix"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.state]
        cell = escape(finding.found) + (f"\n[dim]{escape(finding.advice)}[/]" if finding.advice else "")
        table.add_row(f"[{colour}]{finding.state}[/]", escape(finding.name), cell)
    Console(highlight=False).print(table)
