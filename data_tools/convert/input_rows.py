"""Rows that `convert` reads: compiled triples, conversations, chats (chat_rows.py) and rows that are tokenized already.

The published ACC dataset consists of chats. An assistant text without thinking is only an answer: the template of a
thinking model then writes an empty thinking, which enters the loss.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.common.json_rows import Row
from acc_megatron.common.streams import located
from acc_megatron.data_tools.conversation import Conversation, Turn
from acc_megatron.data_tools.convert.chat_rows import LAYOUTS, Chat, read_chat
from acc_megatron.data_tools.convert.render import Rendered, triple_turns
from acc_megatron.data_tools.rows.row_files import expanded, row_file_kind
from acc_megatron.data_tools.schema import Piece, Triple
from acc_megatron.errors import DataError

COMPILE_FIRST = "for runs of agents, use 'acc-megatron compile' first"
ID_KEYS = ("id", "instance_id")
KNOWN_NAMES = ".jsonl (also with .gz or .zst) or .parquet"
_NAMED = f"{KNOWN_NAMES} file, a .json list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The part of a row that is rendered, and the part that goes into the sample table."""

    id: str
    agent: str
    turns: tuple[Turn, ...]
    num_evidence: int
    num_distractors: int
    extra: dict[str, Any]
    context: tuple[Piece, ...] = ()  # that the user turn was made from, where the row has it
    rendered: Rendered | None = None  # of a row that is tokenized already, which has no turns


def input_files(inputs: list[Path]) -> list[Path]:
    """The data files that files, globs, folders and `-` stand for, in a stable order; of a compile folder, its triples.

    A JSON document counts if it is given itself: in a folder it is often a description of the data.
    Raises DataError for an input without data files.
    """
    files: list[Path] = []
    for path in map(located, expanded(inputs)):
        if (path / "triples.jsonl").is_file():
            files.append(path / "triples.jsonl")
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _is_data_file(file))
            if not found:
                raise DataError(f"the folder {path} contains no {KNOWN_NAMES} file")
            files += found
        elif path.is_file() and row_file_kind(path) is not None:
            files.append(path)
        else:
            raise DataError(f"no input at {path}: give a {_NAMED}, a folder of {KNOWN_NAMES}, or a compile folder")
    return files


def _is_data_file(path: Path) -> bool:
    return row_file_kind(path) in ("lines", "parquet")


def read_example(row: Row) -> Example:
    """A row of any shape that `convert` reads. Raises DataError for another shape, and for mistakes in a row."""
    where = f"{Path(row.file).name}:{row.line}"
    if "turns" in row.value:
        return _from_conversation(Conversation.from_dict(row.value, where))
    if "context" in row.value and not ("instruction" in row.value and isinstance(row.value["context"], str)):
        return _from_triple(Triple.from_dict(row.value, where))
    if "input_ids" in row.value:
        return _from_tokens(row, where)
    if chat := read_chat(row.value, where):
        return _from_chat(row, chat)
    known = f"a triple has 'context', a conversation 'turns', a tokenized row 'input_ids' and 'labels'; {LAYOUTS}"
    found = ", ".join(sorted(row.value))
    raise DataError(f"{where}: unknown shape with keys {found}; {known}; {COMPILE_FIRST}")


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
        turns=triple_turns(triple),
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
        turns=conversation.turns,
        num_evidence=0,
        num_distractors=0,
        extra=kept,
    )


def _from_chat(row: Row, chat: Chat) -> Example:
    extra = _without(row, chat.keys)
    return _example(row, chat.turns, extra if chat.has_reasoning else {"reasoning_source": "none"} | extra)


def _from_tokens(row: Row, where: str) -> Example:
    """A row with `input_ids` and `labels` as transformers uses them: the label of a token is its id, or -100.

    The first token is never a target, because no token precedes it.
    """
    ids, labels = (_integers(row, key, where) for key in ("input_ids", "labels"))
    if len(ids) != len(labels):
        raise DataError(f"{where}: {len(ids)} input_ids but {len(labels)} labels")
    if 0 in _integers(row, "attention_mask", where, required=False):
        raise DataError(f"{where}: 'attention_mask' contains zeros: remove the padding from input_ids and labels")
    mask = labels != -100
    if wrong := np.flatnonzero(mask & (labels != ids)).tolist():
        first = wrong[0]
        raise DataError(f"{where}: label {first} is {labels[first]}, but must be -100 or its token's id {ids[first]}")
    mask[:1] = False
    rendered = Rendered(ids.astype(np.int32), mask.astype(np.uint8), int(mask.argmax()) if mask.any() else 0)
    example = _example(row, (), _without(row, frozenset(("input_ids", "labels", "attention_mask"))))
    return replace(example, rendered=rendered)


def _integers(row: Row, key: str, where: str, *, required: bool = True) -> np.ndarray:
    """A list of whole numbers of 32 bits, `[tokens]` int64; of a key that is not required, empty if it is absent."""
    found = row.value.get(key)
    if found is None and not required:
        return np.empty(0, np.int64)
    limit = 1 << 31
    if not isinstance(found, list) or not all(type(number) is int and -limit <= number < limit for number in found):
        raise DataError(f"{where}: {key!r} must be a list of whole numbers of 32 bits")
    return np.array(found, np.int64)


def _example(row: Row, turns: tuple[Turn, ...], extra: dict[str, Any]) -> Example:
    """An example without pieces; its id and agent come from the row or from its file's name."""
    identity = next((str(row.value[name]) for name in ID_KEYS if row.value.get(name)), None)
    return Example(
        id=identity or f"{Path(row.file).stem}-{row.line:06d}",
        agent=_agent_of(Path(row.file).stem),
        turns=turns,
        num_evidence=0,
        num_distractors=0,
        extra=extra,
    )


def _without(row: Row, keys: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in row.value.items() if name not in keys}


def _agent_of(stem: str) -> str:
    """The agent kind in the name of a published file, such as search_agent_data.jsonl; its rows do not state it."""
    from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS  # here: it imports every reader of logs

    return next((agent for agent in AGENT_KINDS if agent in stem.lower()), "unknown")


def extra_json(extra: dict[str, Any]) -> str:
    """Fields without a column, as one JSON string."""
    return json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str)
