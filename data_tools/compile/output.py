"""The output files of compile and reason: triples, rows left out with their reasons, and the counts of both."""

import shutil
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from acc_megatron.common.atomic_files import atomic_file, sha256_file
from acc_megatron.common.json_bytes import json_bytes
from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.common.output_folder import check_replaceable
from acc_megatron.common.progress import Progress
from acc_megatron.common.streams import located
from acc_megatron.data_tools.compile.messages import messages_row
from acc_megatron.data_tools.conversation import Conversation
from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.errors import Dropped, TooManyBadRows

FORMAT = "acc-megatron triples"
BIN_TOKENS = 2_000  # bin width of the length histogram, as in figure 3 of the paper
TRIPLES, REFUSED, MANIFEST = "triples.jsonl", "quarantine.jsonl", "manifest.json"
MESSAGES = "messages.jsonl"  # the same documents for other trainers, only with --messages
_SEEN = "seen.sqlite"
_SUMMED = (
    "tokens", "supervised_tokens", "evidence_tokens", "distractor_tokens", "filled_tokens", "masked_pieces",
    "distractors_left_out", "without_tools", "without_triple",
)  # fmt: skip
# the answer reaches the ground truth, but the document is left out for another reason
_PASSED = (
    "over_budget", "near_duplicate_", "contaminated", "duplicate_id", "control_string_in_target", "no_verdict",
    "empty_reasoning",
)  # fmt: skip


@dataclass(slots=True)
class Counts:
    """Rows and tokens of one agent, or of all."""

    documents_in: int = 0
    documents_out: int = 0
    unjudged: int = 0  # documents of runs whose own answer was not checked
    empty_reasoning: int = 0  # documents that were kept and state no reasoning
    dropped: Counter[str] = field(default_factory=Counter)
    # tokens of documents that were complete when they were dropped
    dropped_tokens: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    supervised_tokens: int = 0
    evidence_tokens: int = 0
    distractor_tokens: int = 0
    filled_tokens: int = 0
    masked_pieces: int = 0
    distractors_left_out: int = 0
    without_tools: int = 0  # documents of the arm agent-sft whose rows define no tools
    without_triple: int = 0  # documents of the arm agent-sft that the arm acc lacks
    images_removed: int = 0  # base64 images in the texts of pages
    evidence_rules: Counter[str] = field(default_factory=Counter)  # rule for what is evidence -> documents
    lengths: Counter[str] = field(default_factory=Counter)  # first token count of a bin -> documents

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def add(self, counts: dict[str, Any]) -> None:
        """Add the counts of a document; `lengths` and `evidence_rules` are numbers by their key."""
        for name, found in counts.items():
            known = getattr(self, name)
            if isinstance(known, Counter):
                known.update(found)
            else:
                setattr(self, name, known + found)

    def as_dict(self) -> dict[str, Any]:
        """The counts as a JSON object; `pass_rate` is null if no answer was checked."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        failure_reasons = tuple({reason for kind in AGENT_KINDS.values() for reason in kind.failure_reasons})
        num_failed, num_left_out = (
            sum(number for reason, number in self.dropped.items() if reason.startswith(reasons))
            for reasons in (failure_reasons, _PASSED)
        )
        num_passed = self.documents_out + num_left_out - self.unjudged
        num_judged = num_passed + num_failed
        return values | {
            "dropped": dict(sorted(self.dropped.items())),
            "tokens_in": self.tokens + self.dropped_tokens.total(),
            "dropped_tokens": dict(sorted((+self.dropped_tokens).items())),
            "evidence_rules": dict(sorted(self.evidence_rules.items())),
            "lengths": dict(sorted(self.lengths.items(), key=lambda item: int(item[0]))),
            "pass_rate": num_passed / num_judged if num_judged else None,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row starts."""

    file: str
    line: int
    byte_offset: int

    @classmethod
    def of(cls, row: Row | BadRow) -> "Place":
        """The place of a row."""
        return cls(row.file, row.line, row.byte_offset)


class DocumentEntry(TypedDict):
    """What the counts and the search for duplicates need of a document; `counts` are fields of `Counts`."""

    id: str
    agent: str
    is_judged: bool
    counts: dict[str, Any]


def entry_of(document: Triple | Conversation, *, is_judged: bool) -> DocumentEntry:
    """The entry of a document; counts of 0 are left out."""
    settings, notes = document.settings, optional_object(document.settings, "notes")
    counts = {name: number for name in _SUMMED if (number := settings.get(name, 0))}
    counts |= {"documents_in": 1, "documents_out": 1, "unjudged": int(not is_judged)}
    counts["empty_reasoning"] = int(isinstance(document, Triple) and not document.reasoning.strip())
    counts["images_removed"] = notes.get("images_removed", 0)
    counts["lengths"] = {str(settings["tokens"] // BIN_TOKENS * BIN_TOKENS): 1}
    counts["evidence_rules"] = {rule: 1} if isinstance(rule := notes.get("evidence_rule"), str) else {}
    return {
        "id": document.id,
        "agent": document.agent,
        "is_judged": is_judged,
        "counts": {name: found for name, found in counts.items() if found},
    }


class CompileWriter:
    """Writes into a folder that is not published yet; its memory does not depend on the number of rows."""

    def __init__(self, folder: Path, progress: Progress, *, with_messages: bool = False) -> None:
        self._folder, self._progress = folder, progress
        self._messages = (folder / MESSAGES).open("wb") if with_messages else None
        self._triples = (folder / TRIPLES).open("wb")
        self._refused = (folder / REFUSED).open("wb")
        self._seen = sqlite3.connect(folder / _SEEN, isolation_level=None)
        self._seen.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )
        self.by_agent: dict[str, Counts] = {}
        self.num_bad = 0
        self.first_bad = ""

    def __enter__(self) -> "CompileWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in (self._triples, self._refused, self._messages, self._seen):
            if file is not None:
                file.close()
        (self._folder / _SEEN).unlink()
        self._progress.finish()

    def write(self, document: Triple | Conversation, *, is_judged: bool = True) -> None:
        """Write one document. Raises Dropped('duplicate_id') for a known id: the row was given twice."""
        message = json_line(messages_row(document)) if self._messages else b""
        self.write_lines(entry_of(document, is_judged=is_judged), json_line(document.to_dict()), message)

    def write_lines(self, entry: DocumentEntry, line: bytes, message: bytes) -> None:
        """Like `write`, for a document that is written as JSON already; `message` is its row of messages.jsonl."""
        if not self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (entry["id"],)).rowcount:
            raise Dropped("duplicate_id", f"an earlier row with the same content gave {entry['id']!r}")
        self._triples.write(line)
        if self._messages:
            self._messages.write(message)
        self._counts(entry["agent"]).add(entry["counts"])
        self._progress.add(documents=1, tokens=entry["counts"]["tokens"])

    def drop(self, place: Place, agent: str, stage: str, dropped: Dropped, *, is_judged: bool = True) -> None:
        """Record a recognised row that is left out."""
        self._counts(agent).dropped_tokens[dropped.reason] += dropped.num_tokens
        self._counts(agent).unjudged += dropped.reason.startswith(_PASSED) and not is_judged
        self._refuse(place, agent, stage, dropped.reason, dropped.detail)

    def quarantine(self, place: Place, stage: str, reason: str, detail: str) -> None:
        """Record a row that cannot be read (`read`) or that no agent kind recognises (`recognise`)."""
        self.num_bad += 1
        self.first_bad = self.first_bad or f"{place.file}:{place.line}: {reason}: {detail}"
        self._refuse(place, "unknown", stage, reason, detail)

    def note_bad_resource(self, row: BadRow) -> None:
        """Record an unreadable row of a resource, which is not counted as a document."""
        self._refused.write(json_line(_refusal(Place.of(row), "resource", row.reason, row.detail)))

    def _refuse(self, place: Place, agent: str, stage: str, reason: str, detail: str) -> None:
        counts = self._counts(agent)
        counts.documents_in += 1
        counts.dropped[reason] += 1
        self._refused.write(json_line(_refusal(place, stage, reason, detail)))
        self._progress.add(dropped=1)

    def _counts(self, agent: str) -> Counts:
        return self.by_agent.setdefault(agent, Counts())

    def check_bad_share(self, max_bad_share: float, out: Path) -> None:
        """Raise TooManyBadRows if more than this share of the rows is unreadable or not recognised.

        Then the rows left out so far are in `quarantine.jsonl` of `out`, or of `out`.failed if `out` contains an
        earlier output.
        """
        num_rows = sum(counts.documents_in for counts in self.by_agent.values())
        if self.num_bad > max_bad_share * num_rows:
            kept = (out if _may_keep_refused(out) else out.with_name(f"{out.name}.failed")) / REFUSED
            with atomic_file(kept) as file, (self._folder / REFUSED).open("rb") as refused:
                shutil.copyfileobj(refused, file)
            raise TooManyBadRows(
                f"{self.num_bad} of {num_rows} rows are unreadable or not recognised; the limit is {max_bad_share:.1%} "
                f"(--max-bad). The first one: {self.first_bad}. All are in {kept}"
            )

    def summary(self) -> dict[str, Any]:
        """The counts, with documents_in = documents_out + the sum over dropped."""
        total = sum(self.by_agent.values(), Counts())
        assert total.documents_in == total.documents_out + sum(total.dropped.values()), total
        by_agent = {agent: counts.as_dict() for agent, counts in sorted(self.by_agent.items())}
        return total.as_dict() | {"by_agent": by_agent}


def check_output_folder(out: Path, own_format: str = FORMAT, verb: str = "compile") -> None:
    """Raise DataError unless `out` is absent, empty, or contains only the output of an earlier run of the same verb.

    That can be a single quarantine.jsonl, which a run with too many bad rows leaves.
    """
    if out.is_dir() and _may_keep_refused(out):
        return
    own = {TRIPLES, REFUSED, MESSAGES, MANIFEST}
    check_replaceable(out, f"the output of a {verb}", lambda manifest: manifest.get("format") == own_format, own)


def _may_keep_refused(out: Path) -> bool:
    """Whether a folder is absent or contains nothing but a quarantine.jsonl."""
    return not out.exists() or (out.is_dir() and {path.name for path in out.iterdir()} <= {REFUSED})


def json_line(value: dict[str, Any]) -> bytes:
    """A row of a file of JSON lines."""
    return json_bytes(value) + b"\n"


def described(path: Path) -> dict[str, Any]:
    """The path, size and SHA-256 of a file, for a manifest."""
    return {"file": str(path), "bytes": located(path).stat().st_size, "sha256": sha256_file(located(path))}


def _refusal(place: Place, stage: str, reason: str, detail: str) -> dict[str, Any]:
    return asdict(place) | {"stage": stage, "reason": reason, "detail": detail}
