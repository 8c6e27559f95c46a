"""Show a document as the model sees it, piece by piece: supervised tokens in green, the rest dim."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

SUPERVISED, CONTEXT, CONTROL = "bold green", "dim", "magenta"
SUPERVISED_CONTROL = "bold black on green"  # stands out: readers check whether the closing token is supervised
_STYLES = {  # by whether it is a control token, and supervised
    (False, False): CONTEXT,
    (False, True): SUPERVISED,
    (True, False): CONTROL,
    (True, True): SUPERVISED_CONTROL,
}
HEADINGS = {"evidence": "bold cyan", "distractor": "bold yellow"}


def inspect(path: Path, number: int, tokenizer: Tokenizer, console: Console, *, context_tokens: int = 400) -> None:
    """Print a document: its sample row, then its text coloured by the mask.

    Of unsupervised parts longer than `context_tokens`, only both ends are shown, with the number of hidden tokens;
    0 shows everything. Raises DataError when the dataset was made with another tokenizer.
    """
    document = open_document(path, number, tokenizer)
    wraps = console.is_terminal  # elsewhere lines stay as long as they are, for other programs
    console.print(Text(document.title, style="bold"), soft_wrap=not wraps)
    console.print(document.facts, highlight=False, markup=False, soft_wrap=not wraps)
    styles = {"supervised": SUPERVISED, "supervised control": SUPERVISED_CONTROL, "context": CONTEXT}
    styles |= {"control": CONTROL} | (HEADINGS if document.pieces else {})
    if console.color_system:
        console.print(Text("legend: ") + Text(", ").join(Text(name, style) for name, style in styles.items()))
    text = coloured(document.ids, document.mask, tokenizer, context_tokens, document.pieces)
    console.print(text, soft_wrap=not wraps)


@dataclass(frozen=True, slots=True)
class Document:
    """A document to show: its title, a line of facts, `ids` and `mask` `[tokens]`, and its pieces."""

    title: str
    facts: str
    ids: np.ndarray
    mask: np.ndarray
    row: dict[str, Any]  # of the sample table

    @property
    def pieces(self) -> list[dict[str, Any]]:
        """The pieces of its context in order."""
        return self.row["pieces"]


def open_document(path: Path, number: int, tokenizer: Tokenizer) -> Document:
    """A document of a dataset folder. Raises DataError when the dataset was made with another tokenizer."""
    dataset = open_dataset(path)
    expected = dataset.manifest["tokenizer"]["sha256"]
    if tokenizer.sha256 != expected:
        raise DataError(f"{path} was made with tokenizer {expected}, this is {tokenizer.sha256}: give --tokenizer")
    ids, mask = dataset.document(number)
    row = dataset.samples.slice(number, 1).to_pylist()[0]
    share = row["supervised_tokens"] / row["tokens"]
    source = json.loads(row["extra"]).get("reasoning_source", "the published row")
    return Document(
        title=_printable(f"document {number} of {len(dataset)}: {row['id']} ({row['agent']})"),
        facts=_printable(
            f"{row['tokens']:,} tokens, {row['supervised_tokens']:,} supervised ({share:.1%}) from token "
            f"{row['first_supervised_token']:,}; {row['num_evidence']} evidence, {row['num_distractors']} distractors; "
            f"reasoning from {source}"
        ),
        ids=ids,
        mask=mask,
        row=row,
    )


def document_json(path: Path, number: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """The row of a document in the sample table, and its text in parts of equal mask; raises as `inspect` does."""
    document = open_document(path, number, tokenizer)
    parts = np.split(np.arange(len(document.ids)), np.flatnonzero(np.diff(document.mask)) + 1)
    return {
        "document": number,
        **document.row,
        "extra": json.loads(document.row["extra"]),
        "parts": [
            {
                "supervised": bool(document.mask[part[0]]),
                "first_token": int(part[0]),
                "tokens": len(part),
                "text": tokenizer.decode(document.ids[part]),
            }
            for part in parts
            if len(part)
        ],
    }


def coloured(
    ids: np.ndarray,
    mask: np.ndarray,
    tokenizer: Tokenizer,
    context_tokens: int = 0,
    pieces: Sequence[dict[str, Any]] = (),
) -> Text:
    """The document as styled text; long unsupervised parts are shortened unless `context_tokens` is 0.

    Each of `pieces` (rows of the sample table) starts with a line with its kind, title and length. Lines also mark
    where the mask starts and ends, for output without colours.
    """
    text = Text()
    opens = {piece["first_token"]: (number, piece) for number, piece in enumerate(pieces, start=1)}
    bounds = {*opens, *(piece["first_token"] + piece["tokens"] for piece in pieces)}
    bounds |= (changes := set((np.flatnonzero(np.diff(mask)) + 1).tolist()))
    for part in np.split(np.arange(len(ids)), sorted(bounds - {0, len(ids)})):
        first, supervised = int(part[0]), bool(mask[part[0]])
        if first in opens:
            number, piece = opens[first]
            title = " ".join(_printable(piece["title"]).split())[:80]
            line = f"{number} {piece['kind']}: {title} ({piece['tokens']:,} tokens)"
            _append_heading(text, line, HEADINGS[piece["kind"]])
        elif first in changes:
            line = f"{len(part):,} supervised tokens" if supervised else "not supervised"
            _append_heading(text, f"{line} from token {first:,}", SUPERVISED if supervised else CONTEXT)
        if supervised or not context_tokens or len(part) <= max(context_tokens, 2):
            _append(text, ids[part], tokenizer, supervised)
            continue
        half = max(context_tokens // 2, 1)
        _append(text, ids[part[:half]], tokenizer, supervised)
        text.append(f"\n... {len(part) - 2 * half:,} context tokens not shown (--all shows them) ...\n", "yellow")
        _append(text, ids[part[len(part) - half :]], tokenizer, supervised)
    return text


def _append_heading(text: Text, line: str, style: str) -> None:
    text.append(f"{'' if text.plain.endswith(chr(10)) else chr(10)}── {line} ──\n", style)


def _append(text: Text, ids: np.ndarray, tokenizer: Tokenizer, supervised: bool) -> None:
    is_control = ids >= tokenizer.first_control_id
    for run in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(is_control)) + 1):
        control = bool(is_control[run[0]])
        style = _STYLES[control, supervised]
        decoded = tokenizer.decode(ids[run])
        text.append(f"{decoded}" if control else _printable(decoded), style)


def _printable(text: str) -> str:
    """Untrusted text without terminal control sequences: control characters are shown as escapes."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
