"""A whole agent run as a training example, the standard agent SFT: each turn of the agent is learned, observations
are context only.

It renders as Qwen3's own template renders tool use: observations are tool responses inside user turns, calls stand
between `<tool_call>` tokens, and the thinking of every turn since the question is kept. Control tokens go in by id,
so text that spells one stays text in an observation and drops the row in a learned turn.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from acc_megatron.data_tools.render import TEMPLATES, Rendered
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn; `tool_calls` are JSON texts, `supervised` turns are learned and are the assistant's."""

    role: Role
    text: str
    reasoning: str = ""
    tool_calls: tuple[str, ...] = ()
    supervised: bool = False


def agent_turn(text: str = "", *, reasoning: str = "", calls: tuple[str, ...] = ()) -> Turn:
    """A learned turn of the agent, without white space around it."""
    return Turn(role="assistant", text=text.strip(), reasoning=reasoning.strip(), tool_calls=calls, supervised=True)


def call_text(name: str, arguments: object) -> str:
    """A tool call as Qwen writes it: one JSON object."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One run of an agent, turn by turn: a row like a triple, with `turns` for its context."""

    id: str
    agent: str
    turns: tuple[Turn, ...]
    ground_truth: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON row of this conversation."""
        return asdict(self)

    @staticmethod
    def from_dict(row: dict[str, Any], where: str) -> "Conversation":
        """Read a row; `where` (file and line) opens every DataError raised."""
        turns = row.get("turns")
        if not isinstance(row.get("id"), str) or not isinstance(turns, list):
            raise DataError(f"{where}: a conversation has an 'id' and a list of 'turns'")
        kept = {name: row[name] for name in ("provenance", "settings") if isinstance(row.get(name), dict)}
        texts = {name: row[name] for name in ("agent", "ground_truth") if isinstance(row.get(name), str)}
        read = tuple(_turn(turn, f"{where}: turns[{i}]") for i, turn in enumerate(turns))
        return Conversation(id=row["id"], turns=read, **({"agent": "unknown"} | texts | kept))


def render_conversation(turns: Sequence[Turn], tokenizer: Tokenizer, template: str = "qwen3") -> Rendered:
    """Ids and mask of a whole conversation; the loss covers supervised turns and their closing `<|im_end|>`.

    Raises Dropped: control_string_in_target, and nothing_supervised.
    """
    assert template in TEMPLATES, template
    writer = _Writer(tokenizer)
    for number, turn in enumerate(turns):
        before = turns[number - 1].role if number else None
        after = turns[number + 1].role if number + 1 < len(turns) else None
        if turn.role == "assistant":
            _write_assistant(writer, turn, is_last=after is None, template=template)
        elif turn.role == "tool":
            _write_tool(writer, turn, opens=before != "tool", closes=after != "tool")
        else:
            writer.control("<|im_start|>").text(f"{turn.role}\n{turn.text}").control("<|im_end|>").text("\n")
    return writer.rendered()


def _write_tool(writer: "_Writer", turn: Turn, *, opens: bool, closes: bool) -> None:
    if opens:
        writer.control("<|im_start|>").text("user")
    writer.text("\n").control("<tool_response>").text(f"\n{turn.text}\n").control("</tool_response>")
    if closes:
        writer.control("<|im_end|>").text("\n")


def _write_assistant(writer: "_Writer", turn: Turn, *, is_last: bool, template: str) -> None:
    for part in (turn.text, turn.reasoning, *turn.tool_calls) if turn.supervised else ():
        found = writer.tokenizer.control_strings.search(part)
        if found:
            raise Dropped("control_string_in_target", f"a turn of the agent holds {found[0]!r}")
    learned = turn.supervised
    opened = template == "qwen3-thinking-2507"  # generation starts behind `<think>\n`
    writer.control("<|im_start|>").text("assistant\n").flush()
    text = turn.text.lstrip("\n")
    if turn.reasoning or is_last or opened:
        writer.control("<think>", learned=learned and not opened)
        if opened:
            writer.text("\n").flush()
        newline = "" if opened else "\n"
        writer.text(f"{newline}{turn.reasoning.strip(chr(10))}\n", learned=learned)
        writer.control("</think>", learned=learned).text(f"\n\n{text}", learned=learned)
    else:
        writer.text(text, learned=learned)
    for number, call in enumerate(turn.tool_calls):
        if text or number:
            writer.text("\n", learned=learned)
        writer.control("<tool_call>", learned=learned).text(f"\n{call}\n", learned=learned)
        writer.control("</tool_call>", learned=learned)
    writer.control("<|im_end|>", learned=learned).text("\n")


class _Writer:
    """Collects ids and mask; text between two control tokens is encoded as one segment."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._ids: list[np.ndarray] = []
        self._learned: list[bool] = []
        self._text, self._text_learned = "", False

    def text(self, text: str, *, learned: bool = False) -> "_Writer":
        """Add text to the open segment; a change of `learned` closes it."""
        if learned != self._text_learned:
            self.flush()
        self._text, self._text_learned = self._text + text, learned
        return self

    def control(self, name: str, *, learned: bool = False) -> "_Writer":
        """Add a control token by id."""
        if name not in self.tokenizer.control:
            raise DataError(f"the tokenizer has no control token {name}: conversations with tools need it")
        self.flush()
        self._append(np.array([self.tokenizer.control[name]], np.int32), learned)
        return self

    def flush(self) -> None:
        """Close the open segment."""
        if self._text:
            ids = self.tokenizer.encode(self._text).astype(np.int32)
            assert not len(ids) or int(ids.max()) < self.tokenizer.first_control_id, "plain text became a control id"
            self._append(ids, self._text_learned)
        self._text = ""

    def rendered(self) -> Rendered:
        """What was written; Dropped when none of it is learned."""
        self.flush()
        if not any(self._learned):
            raise Dropped("nothing_supervised", "no turn of the agent is left to learn")
        lengths = [len(ids) for ids in self._ids]
        mask = np.repeat(np.array(self._learned, np.uint8), lengths)
        return Rendered(np.concatenate(self._ids), mask, int(mask.argmax()))

    def _append(self, ids: np.ndarray, learned: bool) -> None:
        self._ids.append(ids)
        self._learned.append(learned)


def _turn(row: object, where: str) -> Turn:
    if not isinstance(row, dict) or row.get("role") not in ROLES:
        raise DataError(f"{where} must be an object with a role among {', '.join(ROLES)}")
    text, reasoning, calls = row.get("text"), row.get("reasoning", ""), row.get("tool_calls") or []
    if not isinstance(text, str) or not isinstance(reasoning, str):
        raise DataError(f"{where}: 'text' and 'reasoning' must be strings")
    if not isinstance(calls, list) or not all(isinstance(call, str) for call in calls):
        raise DataError(f"{where}: 'tool_calls' must be a list of strings")
    supervised = row.get("supervised") is True
    if supervised and row["role"] != "assistant":
        raise DataError(f"{where}: a {row['role']} turn is never learned")
    return Turn(role=row["role"], text=text, reasoning=reasoning, tool_calls=tuple(calls), supervised=supervised)
