"""The types that the offline tools share: a trajectory, and the triple compiled from it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from acc_megatron.errors import DataError

Kind = Literal["evidence", "distractor"]


def shallow_dict(record: Any) -> dict[str, Any]:
    """The fields of a dataclass; values are not copied, because `asdict` took an eighth of the time of `compile`."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One complete document of the context: a page, a file or a table; `filled` if it was added to fill the context."""

    id: str
    title: str
    text: str
    kind: Kind
    filled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The origin of a row: its file, 1-based line, and the SHA-256 of its bytes."""

    file: str
    line: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """The parts of one agent run that ACC uses; pieces are in the order in which the agent met them.

    `is_judged` says whether the run's own answer was compared with the ground truth, here or by the author of the row.
    """

    id: str
    agent: str
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
    extra: dict[str, Any] = field(default_factory=dict)  # unknown fields of the input

    def to_dict(self) -> dict[str, Any]:
        """The JSON row of this triple, with the unknown fields of the input."""
        row = shallow_dict(self) | {"context": [shallow_dict(piece) for piece in self.context]}
        return row.pop("extra") | row

    @staticmethod
    def from_dict(row: dict[str, Any], where: str) -> "Triple":
        """Read the row of a triple. Raises DataError with `where` (file and line)."""
        _check_text(row, ("id", "question", "reasoning", "answer"), where)
        if not row["answer"].strip():
            raise DataError(f"{where}: 'answer' is empty, so the loss would cover no text")
        context = row.get("context")
        if not isinstance(context, list):
            raise DataError(f"{where}: 'context' must be a list of pieces, got {type(context).__name__}")
        pieces = tuple([_piece(piece, where, number) for number, piece in enumerate(context)])
        names = Triple.__dataclass_fields__.keys() - {"extra"}
        # an optional field that is null counts as absent, because Parquet writes the fields of all rows
        known = {name: row[name] for name in names if row.get(name) is not None}
        _check_text(
            known, tuple(name for name in ("agent", "reasoning_source", "ground_truth") if name in known), where
        )
        for name in ("provenance", "settings"):
            if not isinstance(known.get(name, {}), dict):
                raise DataError(f"{where}: {name!r} must be an object, got {type(known[name]).__name__}")
        extra = {name: value for name, value in row.items() if name not in names}
        return Triple(**({"agent": "unknown"} | known | {"context": pieces, "extra": extra}))


def _check_text(row: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
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
        _check_text(row, ("id", "title", "text"), f"{where}: context[{number}]")  # raises for the wrong field
    if kind not in ("evidence", "distractor"):
        raise DataError(f"{where}: context[{number}]: kind must be 'evidence' or 'distractor', got {kind!r}")
    return Piece(id=name, title=title, text=text, kind=kind, filled=row.get("filled") is True)
