"""What a compile writes: triples as they come, refused rows with their reasons, and the counts of both."""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from acc_megatron.data_tools.atomic import need_replaceable, sha256_file
from acc_megatron.data_tools.conversation import Conversation
from acc_megatron.data_tools.jsonl import BadRow, Row
from acc_megatron.data_tools.progress import Progress
from acc_megatron.data_tools.schema import Dropped, Triple
from acc_megatron.data_tools.sources.fields import optional_object
from acc_megatron.data_tools.streams import located
from acc_megatron.errors import TooManyBadRows

FORMAT = "acc-megatron triples"
BIN_TOKENS = 2_000  # of the length histogram, as in the paper's figure 3
TRIPLES, REFUSED, MANIFEST = "triples.jsonl", "quarantine.jsonl", "manifest.json"
_SEEN = "seen.sqlite"
_SUMMED = (
    "tokens", "supervised_tokens", "evidence_tokens", "distractor_tokens", "filled_tokens", "masked_pieces",
    "distractors_left_out",
)  # fmt: skip
# the answer of run or teacher was checked and does not reach the truth
_FAILED = ("wrong_answer", "unresolved", "patch_", "tests_")
# it does reach the truth, but the document is left out for another reason
_PASSED = ("over_budget", "near_duplicate_", "contaminated", "duplicate_id", "control_string_in_target")


@dataclass(slots=True)
class Counts:
    """Rows and tokens of one agent, or of all."""

    documents_in: int = 0
    documents_out: int = 0
    unjudged: int = 0  # documents made of runs whose own answer nobody has judged
    dropped: Counter[str] = field(default_factory=Counter)
    # of documents that were made before they were dropped
    dropped_tokens: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    supervised_tokens: int = 0
    evidence_tokens: int = 0
    distractor_tokens: int = 0
    filled_tokens: int = 0
    masked_pieces: int = 0
    distractors_left_out: int = 0
    evidence_rules: Counter[str] = field(default_factory=Counter)  # what counted as evidence -> documents
    lengths: Counter[int] = field(default_factory=Counter)  # first token count of a bin -> documents

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def as_dict(self) -> dict[str, Any]:
        """A JSON object; reasons in alphabetical order, bins by length; no pass rate where none was judged."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        num_failed, num_left_out = (
            sum(number for reason, number in self.dropped.items() if reason.startswith(reasons))
            for reasons in (_FAILED, _PASSED)
        )
        num_passed = self.documents_out + num_left_out - self.unjudged
        num_judged = num_passed + num_failed
        return values | {
            "dropped": dict(sorted(self.dropped.items())),
            "tokens_in": self.tokens + self.dropped_tokens.total(),
            "dropped_tokens": dict(sorted((+self.dropped_tokens).items())),
            "evidence_rules": dict(sorted(self.evidence_rules.items())),
            "lengths": {str(start): number for start, number in sorted(self.lengths.items())},
            "pass_rate": num_passed / num_judged if num_judged else None,
        }


class CompileWriter:
    """Writes into a folder that is not published yet; memory does not grow with the number of rows."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._triples = (folder / TRIPLES).open("wb")
        self._refused = (folder / REFUSED).open("wb")
        self._seen = sqlite3.connect(folder / _SEEN, isolation_level=None)
        self._seen.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE seen (id TEXT UNIQUE)")
        self.by_agent: dict[str, Counts] = {}
        self.num_bad = 0
        self.first_bad = ""

    def __enter__(self) -> "CompileWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in (self._triples, self._refused, self._seen):
            file.close()
        (self._folder / _SEEN).unlink()
        self._progress.finish()

    def write(self, triple: Triple | Conversation, *, is_judged: bool = True) -> None:
        """Write one document. Raises Dropped('duplicate_id') for an id met before: the same row given twice."""
        if not self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (triple.id,)).rowcount:
            raise Dropped("duplicate_id", f"{triple.id!r} was compiled from an earlier row with the same bytes")
        _write_line(self._triples, triple.to_dict())
        counts = self._counts(triple.agent)
        counts.documents_in += 1
        counts.documents_out += 1
        counts.unjudged += not is_judged
        counts.lengths[triple.settings["tokens"] // BIN_TOKENS * BIN_TOKENS] += 1
        if isinstance(rule := optional_object(triple.settings, "notes").get("evidence_rule"), str):
            counts.evidence_rules[rule] += 1
        for name in _SUMMED:
            setattr(counts, name, getattr(counts, name) + triple.settings.get(name, 0))
        self._progress.add(documents=1, tokens=triple.settings["tokens"])

    def drop(self, row: Row, agent: str, stage: str, dropped: Dropped, *, is_judged: bool = True) -> None:
        """Record a row left out on purpose, at the stage `evidence` or `compile`."""
        self._counts(agent).dropped_tokens[dropped.reason] += dropped.num_tokens
        self._counts(agent).unjudged += dropped.reason.startswith(_PASSED) and not is_judged
        self._refuse(row, agent, stage, dropped.reason, dropped.detail)

    def quarantine(self, row: Row | BadRow, stage: str, reason: str, detail: str) -> None:
        """Record a row that could not be read (`read`) or is no run that was asked for (`recognise`)."""
        self.num_bad += 1
        self.first_bad = self.first_bad or f"{row.file}:{row.line}: {reason}: {detail}"
        self._refuse(row, "unknown", stage, reason, detail)

    def note_bad_resource(self, row: BadRow) -> None:
        """Record an unreadable row of a resource; it is no document and is not counted as one."""
        _write_line(self._refused, _refusal(row, "resource", row.reason, row.detail))

    def _refuse(self, row: Row | BadRow, agent: str, stage: str, reason: str, detail: str) -> None:
        counts = self._counts(agent)
        counts.documents_in += 1
        counts.dropped[reason] += 1
        _write_line(self._refused, _refusal(row, stage, reason, detail))
        self._progress.add(dropped=1)

    def _counts(self, agent: str) -> Counts:
        return self.by_agent.setdefault(agent, Counts())

    def need_few_bad(self, max_bad_share: float) -> None:
        """TooManyBadRows when more than this share of the rows was unreadable or no known run."""
        num_rows = sum(counts.documents_in for counts in self.by_agent.values())
        if self.num_bad > max_bad_share * num_rows:
            raise TooManyBadRows(
                f"{self.num_bad} of {num_rows} rows are unreadable or no known run (limit {max_bad_share:.1%}, "
                f"--max-bad); the first: {self.first_bad}"
            )

    def summary(self) -> dict[str, Any]:
        """The counts, with documents_in = documents_out + the sum over dropped."""
        total = sum(self.by_agent.values(), Counts())
        assert total.documents_in == total.documents_out + sum(total.dropped.values()), total
        by_agent = {agent: counts.as_dict() for agent, counts in sorted(self.by_agent.items())}
        return total.as_dict() | {"by_agent": by_agent}


def need_free_or_own(out: Path, own_format: str = FORMAT, verb: str = "compile") -> None:
    """DataError unless `out` is absent, empty, or the output of an earlier run of the same verb and nothing else."""
    own = {TRIPLES, REFUSED, MANIFEST}
    need_replaceable(out, f"the output of a {verb}", lambda manifest: manifest.get("format") == own_format, own)


def described(path: Path) -> dict[str, Any]:
    """A file's label, size and SHA-256 for a manifest."""
    return {"file": str(path), "bytes": located(path).stat().st_size, "sha256": sha256_file(located(path))}


def _refusal(row: Row | BadRow, stage: str, reason: str, detail: str) -> dict[str, Any]:
    place = {"file": row.file, "line": row.line, "byte_offset": row.byte_offset}
    return place | {"stage": stage, "reason": reason, "detail": detail}


def _write_line(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
