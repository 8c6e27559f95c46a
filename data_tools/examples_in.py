"""Rows that `convert` takes: triples of ours, and the published ACC dataset's dialogs, as they are.

A dialog is a user and an assistant message, in re-packs behind a system message. An assistant text without thinking is
an answer alone: the chat template writes an empty thinking before it, and that is what is learned.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.conversation import Conversation, Turn
from acc_megatron.data_tools.jsonl import BadRow, Row, read_jsonl, read_lines
from acc_megatron.data_tools.parquet_rows import open_parquet, read_parquet
from acc_megatron.data_tools.render import user_content
from acc_megatron.data_tools.row_files import expanded, row_file_kind
from acc_megatron.data_tools.schema import Piece, Triple
from acc_megatron.data_tools.streams import located
from acc_megatron.errors import DataError

# the published configs' schemas differ; these are the names their rows and re-packs are known to use
MESSAGE_KEYS = ("dialogs", "input_messages", "prompt", "messages")
DIALOG_ROLES = (["user", "assistant"], ["system", "user", "assistant"])
RUNS = "an agent's run goes through 'compile' first"
ID_KEYS = ("id", "instance_id")
KNOWN_NAMES = ".jsonl (also with .gz or .zst) or .parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What the renderer needs of a row, and what the sample table keeps of it."""

    id: str
    agent: str
    user: str
    reasoning: str
    answer: str
    num_evidence: int
    num_distractors: int
    extra: dict[str, Any]
    system: str | None = None
    turns: tuple[Turn, ...] = ()  # of a conversation, whose user, reasoning and answer are empty
    context: tuple[Piece, ...] = ()  # what `user` is made of, where the row says so


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRange:
    """A slice of one input file that a worker can read by itself."""

    path: Path
    first_row: int
    num_rows: int
    byte_offset: int = 0
    first_line: int = 1


def input_files(inputs: list[Path]) -> list[Path]:
    """The data files among files, globs, folders and `-`, in a stable order; a compile folder gives its triples."""
    files: list[Path] = []
    for path in map(located, expanded(inputs)):
        if (path / "triples.jsonl").is_file():
            files.append(path / "triples.jsonl")
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _holds_examples(file))
            if not found:
                raise DataError(f"{path} holds no {KNOWN_NAMES} file")
            files += found
        elif path.is_file() and _holds_examples(path):
            files.append(path)
        else:
            raise DataError(f"no input at {path}: give a {KNOWN_NAMES} file, a folder of them, or a compile folder")
    return files


def _holds_examples(path: Path) -> bool:
    return row_file_kind(path) in ("lines", "parquet")


def row_ranges(path: Path, rows_per_range: int) -> Iterator[RowRange]:
    """Cut a file into ranges of at most `rows_per_range` rows, reading it once in constant memory.

    A range of a compressed file costs reading it up to there.
    """
    if row_file_kind(path) == "parquet":
        num_rows = open_parquet(path).metadata.num_rows
        for first in range(0, num_rows, rows_per_range):
            yield RowRange(path=path, first_row=first, num_rows=min(rows_per_range, num_rows - first))
        return
    start, start_line, rows, first_row = 0, 1, 0, 0
    for line in read_lines(path):
        rows += line.data is None or not line.data.isspace()
        if rows == rows_per_range:
            yield RowRange(path=path, first_row=first_row, num_rows=rows, byte_offset=start, first_line=start_line)
            first_row, rows, start, start_line = first_row + rows, 0, line.byte_offset + line.num_bytes, line.number + 1
    if rows:
        yield RowRange(path=path, first_row=first_row, num_rows=rows, byte_offset=start, first_line=start_line)


def read_rows(rows: RowRange) -> Iterator[Row | BadRow]:
    """The rows of one range, good and bad."""
    if row_file_kind(rows.path) != "parquet":
        yield from read_jsonl(
            rows.path,
            byte_offset=rows.byte_offset,
            first_line=rows.first_line,
            num_rows=rows.num_rows,
            hashed=False,
        )
        return
    yield from read_parquet(rows.path, first_row=rows.first_row, num_rows=rows.num_rows)


def read_example(row: Row) -> Example:
    """A triple or a published dialog as an Example; DataError names the row and the keys of any other shape."""
    where = f"{Path(row.file).name}:{row.line}"
    if "turns" in row.value:
        return _from_conversation(Conversation.from_dict(row.value, where))
    if "context" in row.value:
        return _from_triple(Triple.from_dict(row.value, where))
    key = next((key for key in MESSAGE_KEYS if isinstance(row.value.get(key), list)), None)
    if key is None:
        known = f"a triple has 'context', a published row one of {', '.join(MESSAGE_KEYS)}; {RUNS}"
        raise DataError(f"{where}: unknown shape with keys {', '.join(sorted(row.value))}; {known}")
    return _from_dialog(row, key, where)


def _from_triple(triple: Triple) -> Example:
    num_evidence = sum(piece.kind == "evidence" for piece in triple.context)
    kept = {
        "reasoning_source": triple.reasoning_source,
        "ground_truth": triple.ground_truth,
        "provenance": triple.provenance,
        "settings": triple.settings,
    }
    return Example(
        id=triple.id,
        agent=triple.agent,
        user=user_content(triple.question, triple.context),
        reasoning=triple.reasoning,
        answer=triple.answer,
        num_evidence=num_evidence,
        num_distractors=len(triple.context) - num_evidence,
        extra=triple.extra | kept,
        context=tuple(triple.context),
    )


def _from_conversation(conversation: Conversation) -> Example:
    kept = {name: getattr(conversation, name) for name in ("ground_truth", "provenance", "settings")}
    return Example(
        id=conversation.id,
        agent=conversation.agent,
        user="",
        reasoning="",
        answer="",
        num_evidence=0,
        num_distractors=0,
        extra=kept,
        turns=conversation.turns,
    )


def _from_dialog(row: Row, key: str, where: str) -> Example:
    messages = row.value[key]
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    texts: list[Any] = [message.get("content") if isinstance(message, dict) else None for message in messages]
    if roles not in DIALOG_ROLES or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{where}: {key!r} must be a user and an assistant message with text, behind a system message or none, "
            f"got roles {roles}; {RUNS}"
        )
    user, assistant = texts[-2:]
    apart = messages[-1].get("reasoning_content")
    if isinstance(apart, str) and "</think>" not in assistant:  # as OpenAI-compatible servers write it
        assistant = f"{apart}</think>{assistant}"
    reasoning, end, answer = assistant.partition("</think>")
    if not end and "<think>" not in assistant:
        reasoning, answer = "", assistant
    elif not end or "</think>" in answer:
        raise DataError(f"{where}: the assistant text must be an answer, behind one '<think>...</think>' or none")
    if not answer.strip():
        raise DataError(f"{where}: the assistant text has no answer")
    if not user.strip():
        raise DataError(f"{where}: the user message is empty")
    extra = {name: value for name, value in row.value.items() if name != key}
    identity = next((str(row.value[name]) for name in ID_KEYS if row.value.get(name)), None)
    return Example(
        id=identity or f"{Path(row.file).stem}-{row.line:06d}",
        agent=_agent_of(Path(row.file).stem),
        user=user,
        reasoning=reasoning.removeprefix("<think>").strip("\n"),
        answer=answer,
        num_evidence=0,
        num_distractors=0,
        extra=extra if end else {"reasoning_source": "none"} | extra,
        system=texts[0] if len(texts) == 3 else None,
    )


def _agent_of(stem: str) -> str:
    """The published files are named search_agent_data.jsonl and so on; rows do not say their agent."""
    return next((agent for agent in ("search", "swe", "sql") if agent in stem.lower()), "unknown")


def extra_json(extra: dict[str, Any]) -> str:
    """Unknown fields as one JSON string, for a table whose rows need not agree on them."""
    return json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str)
