"""One finding of the doctor, and findings as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

State = Literal["ok", "missing", "wrong", "unseen"]
COLOURS: dict[State, str] = {"ok": "green", "missing": "yellow", "wrong": "red", "unseen": "cyan"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at and in what state it is; `unseen` could not be checked here, for a reason given in `found`.

    A finding that is `needed` and neither ok nor unseen keeps the job from running.
    """

    name: str
    state: State
    found: str
    effect: str = ""
    mend: str = ""
    needed: bool = False

    @property
    def stops_the_job(self) -> bool:
        """Whether the job cannot run before this is mended."""
        return self.needed and self.state in ("missing", "wrong")


def print_findings(findings: Sequence[Finding], as_json: bool) -> None:
    """A table on stdout, or one JSON object; what stops the job comes last, in words."""
    stopping = [finding for finding in findings if finding.stops_the_job]
    if as_json:
        print(json.dumps({"can_run": not stopping, "findings": [asdict(finding) for finding in findings]}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "found; what follows, and the mend"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.state]
        cell = escape(finding.found)
        if finding.state != "ok" and (advice := "; ".join(filter(None, (finding.effect, finding.mend)))):
            cell += f"\n[dim]{escape(advice)}[/]"
        table.add_row(f"[{colour}]{finding.state}[/]", escape(finding.name), cell)
    Console(highlight=False).print(table)
    for finding in stopping:
        print(": ".join(filter(None, ("cannot run", finding.name, finding.found, finding.mend))))
    if not stopping:
        print("the job can run here")
