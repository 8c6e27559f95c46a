"""The part of the report about one document: what it consists of, its question and answer, its steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acc_megatron.common.html_page import Part, Strip
from acc_megatron.data_tools.convert.dataset_folder import DatasetFolder
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.errors import AccError
from acc_megatron.observe.metrics import LoggedStep
from acc_megatron.observe.usage import from_ranges

SHOWN_CHARS = 600
END_OF_THINKING = "</think>"


@dataclass(frozen=True, slots=True)
class DocumentSection:
    """One document; `question` and `answer` are texts, empty if the tokenizer of the dataset is not at hand."""

    title: str
    strip: Strip
    question: str
    answer: str
    training: str  # what training did to the steps that contain it; empty without a run


def document_section(dataset: DatasetFolder, steps: Sequence[LoggedStep]) -> DocumentSection:
    """Show the document of median length, of those with distractors if there are any."""
    samples = dataset.samples
    lengths = dataset.lengths
    rich = np.flatnonzero(samples["num_distractors"].to_numpy() > 0)
    candidates = rich if len(rich) else np.arange(len(dataset))
    number = int(candidates[np.argsort(lengths[candidates], kind="stable")[len(candidates) // 2]])
    row = samples.slice(number, 1).to_pylist()[0]
    ids, mask = dataset.document(number)
    tokenizer = _tokenizer(dataset)
    parts = _parts(row["pieces"], ids, mask, tokenizer)
    question = answer = ""
    if tokenizer is not None:
        outside = [part for part in parts if part.kind == "question" and part.first < row["first_supervised_token"]]
        question = _text(ids, outside[-1], tokenizer) if outside else ""
        answer = _text(ids, [part for part in parts if part.kind == "answer"][-1], tokenizer)
    return DocumentSection(
        title=f"Document {number} of {len(dataset):,}: {row['id']} ({row['agent']}), {row['tokens']:,} tokens",
        strip=Strip(
            [Part(part.label, part.tokens, f"{part.tokens:,} tokens", part.kind) for part in parts],
            "The document from its first token to its last. Only reasoning and answer are supervised.",
            key=_key(parts),
        ),
        question=question,
        answer=answer,
        training=_training(number, steps),
    )


@dataclass(frozen=True, slots=True)
class _Span:
    """A range of tokens of one kind."""

    first: int
    tokens: int
    kind: str
    label: str


def _parts(
    pieces: Sequence[dict[str, object]], ids: np.ndarray, mask: np.ndarray, tokenizer: Tokenizer | None
) -> list[_Span]:
    """The document in order: its pieces, what stands between them, and the supervised part."""
    kinds = np.full(len(ids), "question", dtype=object)
    numbers = np.zeros(len(ids), np.int64)  # tells neighbouring pieces apart
    for number, piece in enumerate(pieces, start=1):
        first, count = int(str(piece["first_token"])), int(str(piece["tokens"]))
        kinds[first : first + count] = piece["kind"]
        numbers[first : first + count] = number
    kinds[mask == 1] = "answer"
    end = tokenizer.control.get(END_OF_THINKING) if tokenizer else None
    ends = np.flatnonzero((ids == end) & (mask == 1)) if end is not None else np.empty(0, np.int64)
    if len(ends):
        until = np.arange(len(ids)) <= ends[-1]
        kinds[until & (mask == 1)] = "reasoning"
    changes = np.flatnonzero((kinds[1:] != kinds[:-1]) | (numbers[1:] != numbers[:-1])) + 1
    bounds = [0, *changes.tolist(), len(ids)]
    return [
        _Span(first, last - first, str(kinds[first]), _label(str(kinds[first]), bool(len(ends))))
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]


def _label(kind: str, is_split: bool) -> str:
    if kind == "answer" and not is_split:
        return "reasoning and answer"
    return {"question": "question and instructions", "distractor": "distractors"}.get(kind, kind)


def _key(parts: Sequence[_Span]) -> list[Part]:
    """One entry for each kind, in the order of the colours."""
    order = ("evidence", "distractor", "question", "reasoning", "answer")
    found = []
    for kind in order:
        own = [part for part in parts if part.kind == kind]
        if own:
            tokens = sum(part.tokens for part in own)
            pieces = f" in {len(own)} piece{'s' if len(own) != 1 else ''}" if kind in ("evidence", "distractor") else ""
            found.append(Part(own[0].label, tokens, f"{tokens:,} tokens{pieces}", kind))
    return found


def _text(ids: np.ndarray, part: _Span, tokenizer: Tokenizer) -> str:
    """The text of a part without control tokens; a long one is shortened in the middle."""
    own = ids[part.first : part.first + part.tokens]
    text = tokenizer.decode(own[own < tokenizer.first_control_id]).strip()
    half = SHOWN_CHARS // 2
    return text if len(text) <= SHOWN_CHARS else f"{text[:half]} … {text[-half:]}"


def _tokenizer(dataset: DatasetFolder) -> Tokenizer | None:
    """The tokenizer of the dataset; None if it is not on this machine any more."""
    try:
        found = load_tokenizer(dataset.manifest["tokenizer"]["name"])
    except (AccError, OSError):
        return None
    return found if found.sha256 == dataset.manifest["tokenizer"]["sha256"] else None


def _training(number: int, steps: Sequence[LoggedStep]) -> str:
    seen = [row for row in steps if "documents" in row and number in from_ranges(row["documents"])]
    if not seen:
        return ""
    first, last = seen[0], seen[-1]
    if len(seen) == 1:
        return f"Training used it in step {first['step']}, whose batch had a loss of {first['loss']:.3f}."
    return (
        f"Training used it in {len(seen)} steps. The batch with it had a loss of {first['loss']:.3f} at step "
        f"{first['step']} and of {last['loss']:.3f} at step {last['step']}."
    )
