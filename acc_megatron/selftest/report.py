"""The results of the selftest as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acc_megatron.common.this_machine import machine
from acc_megatron.selftest.check import Result


@dataclass(frozen=True)
class Finished:
    """The results of all checks, and what they hold for."""

    results: Sequence[Result]
    ranks: int
    gpu: str
    is_quick: bool

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(result.state != "FAIL" for result in self.results)

    def table_lines(self) -> list[str]:
        """Return one line a check with its figures, then for each failure where it is and what to do."""
        width = max(len(result.name) for result in self.results)
        lines = []
        for result in self.results:
            figures = ", ".join(f"{name} {_number(value)}" for name, value in result.figures.items())
            shown = figures if result.state == "PASS" else ""
            notes = result.text if result.state != "FAIL" else f"rank {result.rank}: {result.text}"
            found = "; ".join(filter(None, (shown, notes)))
            lines.append(f"{result.state}  {result.name:<{width}}  {result.seconds:>6.1f} s  {found}".rstrip())
            if result.state == "FAIL":
                lines.append(f"      {'':<{width}}            next: {result.advice}")
        counts = {state: sum(result.state == state for result in self.results) for state in ("PASS", "FAIL", "SKIP")}
        lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return all results with the machine and the versions that they hold for."""
        return {
            "passed": self.passed,
            "ranks": self.ranks,
            "quick": self.is_quick,
            **machine(gpu=self.gpu),
            "checks": [asdict(result) for result in self.results],
        }


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.2f}" if 0.01 <= abs(value) < 1e6 else f"{value:.1e}"
