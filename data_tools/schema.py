"""The types that cross the offline tools: a trajectory as read, and the triple compiled from it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from acc_megatron.errors import DataError

Agent = Literal["search", "swe", "sql"]
Kind = Literal["evidence", "distractor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One document of the context: a page, a file or a table, whole; `filled` if another run or store lent it."""

    id: str
    title: str
    text: str
    kind: Kind
    filled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a row came from: its file, line (1-based) and the SHA-256 of its bytes."""

    file: str
    line: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One agent run reduced to what ACC needs; pieces are in the order the agent met them.

    `is_judged` says whether the run's own answer was held against the truth, here or by whoever wrote its row.
    """

    id: str
    agent: Agent
    question: str
    evidence: tuple[Piece, ...]
    distractors: tuple[Piece, ...]
    reasoning: str
    reasoning_source: str
    answer: str
    ground_truth: str
    provenance: Provenance
    is_judged: bool = True
    notes: dict[str, Any] = field(default_factory=dict)


class Dropped(Exception):
    """A row that is left out on purpose; `reason` is a short slug that the counts are kept under.

    `num_tokens` is the length of its document where it had one by then, else 0.
    """

    def __init__(self, reason: str, detail: str = "", *, num_tokens: int = 0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.num_tokens = num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """A compiled example (q, C, r, y): the context is in its final order."""

    id: str
    agent: str
    question: str
    context: tuple[Piece, ...]
    reasoning: str
    answer: str
    reasoning_source: str = "unknown"
    ground_truth: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # fields of the input we do not know; kept

    def to_dict(self) -> dict[str, Any]:
        """The JSON row of this triple; unknown fields of the input stand beside ours."""
        row = asdict(self)
        return row.pop("extra") | row

    @staticmethod
    def from_dict(row: dict[str, Any], where: str) -> "Triple":
        """Read a triple row; `where` (file and line) opens every DataError raised."""
        _need_text(row, ("id", "question", "reasoning", "answer"), where)
        if not row["answer"].strip():
            raise DataError(f"{where}: 'answer' is empty; a triple without an answer supervises nothing")
        context = row.get("context")
        if not isinstance(context, list):
            raise DataError(f"{where}: 'context' must be a list of pieces, got {type(context).__name__}")
        pieces = tuple([_piece(piece, where, number) for number, piece in enumerate(context)])
        names = Triple.__dataclass_fields__.keys() - {"extra"}
        # an optional field that is null counts as absent: so Parquet writes a field that other rows have
        known = {name: row[name] for name in names if row.get(name) is not None}
        _need_text(known, tuple(name for name in ("agent", "reasoning_source", "ground_truth") if name in known), where)
        for name in ("provenance", "settings"):
            if not isinstance(known.get(name, {}), dict):
                raise DataError(f"{where}: {name!r} must be an object, got {type(known[name]).__name__}")
        extra = {name: value for name, value in row.items() if name not in names}
        return Triple(**({"agent": "unknown"} | known | {"context": pieces, "extra": extra}))


def _need_text(row: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if not isinstance(row.get(key), str):
            found = type(row[key]).__name__ if key in row else "nothing"
            raise DataError(f"{where}: {key!r} must be a string, got {found}")


def _piece(row: object, where: str, number: int) -> Piece:
    if not isinstance(row, dict):
        raise DataError(f"{where}: context[{number}] must be an object, got {type(row).__name__}")
    found: tuple[Any, ...] = (row.get("id"), row.get("title"), row.get("text"), row.get("kind", "evidence"))
    name, title, text, kind = found
    if not (type(name) is type(title) is type(text) is str):
        _need_text(row, ("id", "title", "text"), f"{where}: context[{number}]")  # names the one that is wrong
    if kind not in ("evidence", "distractor"):
        raise DataError(f"{where}: context[{number}]: kind must be 'evidence' or 'distractor', got {kind!r}")
    return Piece(id=name, title=title, text=text, kind=kind, filled=row.get("filled") is True)
