"""Figures of triples or of a dataset folder: by agent, length, number of evidence pieces, and drop reason."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.common.json_rows import BadRow, read_jsonl
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.manifest import SAMPLES
from acc_megatron.errors import ConfigError, DataError

TRIPLES, REFUSED = "triples.jsonl", "quarantine.jsonl"
_PERCENTILES = (0, 50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """What the figures are made from."""

    agent: str
    tokens: int
    supervised_tokens: int
    num_evidence: int
    num_distractors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which documents and drops count; None lets everything pass. Ranges include both ends."""

    agent: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_evidence: int | None = None
    max_evidence: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "evidence"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ConfigError(f"--min-{name} {low} is above --max-{name} {high}")

    def accepts(self, facts: DocumentFacts) -> bool:
        """Whether a document counts."""
        return (
            self.agent in (None, facts.agent)
            and (self.min_tokens is None or facts.tokens >= self.min_tokens)
            and (self.max_tokens is None or facts.tokens <= self.max_tokens)
            and (self.min_evidence is None or facts.num_evidence >= self.min_evidence)
            and (self.max_evidence is None or facts.num_evidence <= self.max_evidence)
        )


@dataclass(slots=True)
class AgentFigures:
    """The figures of the documents of one agent."""

    lengths: list[int] = field(default_factory=list)
    supervised_tokens: int = 0
    num_distractors: int = 0
    evidence: Counter[int] = field(default_factory=Counter)  # pieces of evidence -> documents

    def add(self, facts: DocumentFacts) -> None:
        """Count one document."""
        self.lengths.append(facts.tokens)
        self.supervised_tokens += facts.supervised_tokens
        self.num_distractors += facts.num_distractors
        self.evidence[facts.num_evidence] += 1

    def as_dict(self) -> dict[str, Any]:
        """A JSON object; the percentiles of the lengths are lengths of documents."""
        names = ("shortest", "median", "percentile_90", "percentile_99", "longest")
        lengths = np.percentile(self.lengths, _PERCENTILES, method="lower").astype(int).tolist()
        return {
            "documents": len(self.lengths),
            "tokens": sum(self.lengths),
            "supervised_tokens": self.supervised_tokens,
            "distractors": self.num_distractors,
            "lengths": dict(zip(names, lengths, strict=True)),
            "evidence": {str(number): count for number, count in sorted(self.evidence.items())},
        }


def statistics(folder: Path, filters: Filters) -> dict[str, Any]:
    """Figures by agent, and dropped rows by step and reason, of an output of `compile`, `reason` or `convert`.

    Raises DataError for any other folder and for a damaged one, ConfigError for an agent without documents.
    """
    by_agent: dict[str, AgentFigures] = {}
    agents: set[str] = set()
    for facts in _documents(folder):
        agents.add(facts.agent)
        if filters.accepts(facts):
            by_agent.setdefault(facts.agent, AgentFigures()).add(facts)
    if filters.agent is not None and filters.agent not in agents:
        raise ConfigError(
            f"--agent {filters.agent}: {folder} has documents of {', '.join(sorted(agents)) or 'no agent'}"
        )
    drops: Counter[tuple[str, str]] = Counter()
    for refused in _rows(folder / REFUSED) if (folder / REFUSED).is_file() else ():
        if filters.reason in (None, refused["reason"]):
            drops[refused["stage"], refused["reason"]] += 1
    return {
        "agents": {agent: by_agent[agent].as_dict() for agent in sorted(by_agent)},
        "dropped": [
            {"step": step, "reason": reason, "rows": number} for (step, reason), number in sorted(drops.items())
        ],
    }


def lengths_by_agent(folder: Path, filters: Filters) -> dict[str, np.ndarray]:
    """Tokens of every document by agent, `[documents]` int64; see `statistics`."""
    found: dict[str, list[int]] = {}
    for facts in _documents(folder):
        if filters.accepts(facts):
            found.setdefault(facts.agent, []).append(facts.tokens)
    return {agent: np.array(found[agent], np.int64) for agent in sorted(found)}


def _documents(folder: Path) -> Iterable[DocumentFacts]:
    if (folder / TRIPLES).is_file():
        return map(_facts_of_row, _rows(folder / TRIPLES))
    if (folder / SAMPLES).is_file():
        columns = ("agent", "tokens", "supervised_tokens", "num_evidence", "num_distractors")
        table = open_dataset(folder).samples.select(columns)
        return (DocumentFacts(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True))
    raise DataError(f"{folder} is neither an output of compile or reason ({TRIPLES}) nor a dataset folder ({SAMPLES})")


def _facts_of_row(row: dict[str, Any]) -> DocumentFacts:
    settings, kinds = row.get("settings", {}), Counter(piece.get("kind") for piece in row.get("context", []))
    return DocumentFacts(
        agent=str(row.get("agent", "unknown")),
        tokens=settings.get("tokens", 0),
        supervised_tokens=settings.get("supervised_tokens", 0),
        num_evidence=kinds["evidence"],
        num_distractors=kinds["distractor"],
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(path, hashed=False):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{row.line}: {row.reason}: {row.detail}")
        yield row.value


def table_lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures as lines of text."""
    header = ("agent", "documents", "tokens", "supervised", "median", "90 %", "longest", "evidence", "distractors")
    yield _line(header)
    for agent, figures in found["agents"].items():
        lengths, num = figures["lengths"], figures["documents"]
        num_evidence = sum(int(number) * count for number, count in figures["evidence"].items())
        numbers = [num, figures["tokens"], figures["supervised_tokens"]]
        numbers += [lengths["median"], lengths["percentile_90"], lengths["longest"]]
        means = (num_evidence / num, figures["distractors"] / num)
        yield _line((agent, *(f"{number:,}" for number in numbers), *(f"{mean:.1f}" for mean in means)))
    for agent, figures in found["agents"].items():
        counts = ", ".join(f"{number}: {count:,}" for number, count in figures["evidence"].items())
        yield f"{agent}: documents by pieces of evidence: {counts}"
    for drop in found["dropped"]:
        yield f"dropped {drop['rows']:>8,}  {drop['step']}: {drop['reason']}"


def _line(cells: Iterable[str]) -> str:
    first, *others = cells
    return f"{first:<10}" + "".join(f"{cell:>15}" for cell in others)
