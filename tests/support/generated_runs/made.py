"""What a generated row must become."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Made:
    """A row with the parts of its triple, or with the reason for which it must be dropped ('' for a kept row).

    `evidence` maps the id of each piece to a text that it must contain.
    """

    name: str
    row: dict[str, Any]
    question: str = ""
    evidence: dict[str, str] = field(default_factory=dict)
    reasoning: str = ""
    answer: str = ""
    reason: str = ""
