"""A complete agent run as a training example (agent SFT): its turns, of which only the agent's enter the loss."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from acc_megatron.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a chat; `tool_calls` are JSON texts, and only assistant turns can be `supervised`.

    `tools` are the definitions of the tools that the model may call, as JSON texts; only a system turn has them. A
    system turn with tools and an empty text stands for a chat without a system message.
    """

    role: Role
    text: str
    reasoning: str = ""
    tool_calls: tuple[str, ...] = ()
    supervised: bool = False
    tools: tuple[str, ...] = ()


def agent_turn(text: str = "", *, reasoning: str = "", calls: tuple[str, ...] = ()) -> Turn:
    """A supervised assistant turn, stripped of surrounding white space."""
    return Turn(role="assistant", text=text.strip(), reasoning=reasoning.strip(), tool_calls=calls, supervised=True)


def call_text(name: str, arguments: object) -> str:
    """A tool call as one JSON object, in the form that Qwen writes."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One agent run turn by turn: a row like a triple, with `turns` in place of question, context and answer."""

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
        """Read a row. Raises DataError, whose message starts with `where` (file and line)."""
        turns = row.get("turns")
        if not isinstance(row.get("id"), str) or not isinstance(turns, list):
            raise DataError(f"{where}: a conversation needs a string 'id' and a list 'turns'")
        kept = {name: row[name] for name in ("provenance", "settings") if isinstance(row.get(name), dict)}
        texts = {name: row[name] for name in ("agent", "ground_truth") if isinstance(row.get(name), str)}
        read = tuple(_turn(turn, f"{where}: turns[{i}]") for i, turn in enumerate(turns))
        return Conversation(id=row["id"], turns=read, **({"agent": "unknown"} | texts | kept))


def _turn(row: object, where: str) -> Turn:
    if not isinstance(row, dict) or row.get("role") not in ROLES:
        raise DataError(f"{where} must be an object whose 'role' is one of {', '.join(ROLES)}")
    text, reasoning, calls = row.get("text"), row.get("reasoning", ""), row.get("tool_calls") or []
    if not isinstance(text, str) or not isinstance(reasoning, str):
        raise DataError(f"{where}: 'text' and 'reasoning' must be strings")
    tools = row.get("tools") or []
    for name, texts in (("tool_calls", calls), ("tools", tools)):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: {name!r} must be a list of strings")
    if tools and row["role"] != "system":
        raise DataError(f"{where}: only system turns have tools, this is a {row['role']} turn")
    supervised = row.get("supervised") is True
    if supervised and row["role"] != "assistant":
        raise DataError(f"{where}: only assistant turns can be supervised, this is a {row['role']} turn")
    return Turn(
        role=row["role"],
        text=text,
        reasoning=reasoning,
        tool_calls=tuple(calls),
        supervised=supervised,
        tools=tuple(tools),
    )
