"""MRCR rows: the published columns, and the invariants that every row meets."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acc_megatron.errors import DataError
from acc_megatron.evaluate.models.prompt import Message

OPENING = "Here are some examples of conversations succeeded by a follow-up question answered correctly:"
EXAMPLE, END_EXAMPLE = "======EXAMPLE======", "======END EXAMPLE======"
Request = tuple[str, str]  # format and topic
_FOLLOW_UP = re.compile(
    r"Prepend (?P<rand>\S{10}) to the [1-9]\d*(?:st|nd|rd|th) \(1 indexed\) "
    r"(?P<format>.+) about (?P<topic>.+)\. Do not include any other text in your response\."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MrcrRow:
    """One row under its published column names; `prompt` is a JSON string of messages.

    `n_chars` of a generated row is the number of characters in all message contents.
    """

    prompt: str
    answer: str
    random_string_to_prepend: str
    n_needles: int
    desired_msg_index: int
    total_messages: int
    n_chars: int


def request_text(request: Request) -> str:
    """The user message of a request."""
    return f"write a {request[0]} about {request[1]}"  # also "a email", as in the published rows


def follow_up(rand: str, i: int, request: Request) -> str:
    """The last message: a request for occurrence `i`, from 1."""
    ordinal = f"{i}{'th' if i % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(i % 10, 'th')}"
    return (
        f"Prepend {rand} to the {ordinal} (1 indexed) {request[0]} about {request[1]}. "
        "Do not include any other text in your response."
    )


def chat_message(role: str, content: str) -> Message:
    """One chat message."""
    return {"role": role, "content": content}


def messages_of(row: MrcrRow, where: str = "row") -> list[Message]:
    """The chat in a row's `prompt`. Raises DataError if it is not a JSON list of messages with role and content."""
    try:
        messages = json.loads(row.prompt)
    except ValueError as error:
        raise DataError(f"{where}: 'prompt' is not JSON: {error}") from None
    good = isinstance(messages, list) and all(
        isinstance(message, dict)
        and message.get("role") in ("user", "assistant")
        and isinstance(message.get("content"), str)
        for message in messages
    )
    if not good:
        raise DataError(f"{where}: 'prompt' must be a list of messages with a role (user, assistant) and content")
    return [chat_message(message["role"], message["content"]) for message in messages]


def check_row(row: MrcrRow, where: str = "row") -> None:
    """Raise DataError, naming the first broken invariant of a published row.

    The invariants are those that a public checker found in the real files: two example blocks, then strictly
    alternating user and assistant messages, then the follow-up; `answer` is the random string followed directly by the
    chosen text; exactly `n_needles` requests equal the chosen one.
    """
    messages = messages_of(row, where)
    if not 0 < row.desired_msg_index < len(messages) - 2:
        raise DataError(f"{where}: desired_msg_index {row.desired_msg_index} is outside {len(messages)} messages")
    first, chosen = messages[0]["content"], messages[row.desired_msg_index]
    requests = [message["content"] for message in messages[1:-1] if message["role"] == "user"]
    asked = _FOLLOW_UP.fullmatch(messages[-1]["content"])
    pairs = ["user", "assistant"] * ((len(messages) - 2) // 2)
    num_same = requests.count(chosen["content"])
    invariants = {
        f"message 0 opens with {OPENING!r}": first.startswith(OPENING),
        f"message 0 has two {EXAMPLE} blocks": re.findall(r"={6}(?:END )?EXAMPLE={6}", first)
        == [EXAMPLE, END_EXAMPLE] * 2,
        "the examples contain 'User: ' and 'Assistant: ' lines": "\nUser: " in first and "\nAssistant: " in first,
        "a user message, then alternating user and assistant messages, then a user message": [
            m["role"] for m in messages
        ]
        == ["user", *pairs, "user"],
        "the last message asks to prepend the random string": asked is not None
        and asked["rand"] == row.random_string_to_prepend,
        "desired_msg_index is the request the last message names": asked is not None
        and chosen == chat_message("user", request_text((asked["format"], asked["topic"]))),
        "answer is the random string followed directly by the chosen text": row.answer
        == row.random_string_to_prepend + messages[row.desired_msg_index + 1]["content"],
        f"n_needles is {row.n_needles} and {num_same} requests equal the chosen one": num_same == row.n_needles,
        f"total_messages is {row.total_messages} of {len(messages)}": row.total_messages == len(messages),
    }
    for invariant, is_met in invariants.items():
        if not is_met:
            raise DataError(f"{where}: not an MRCR row; this is not true: {invariant}")


def from_row(row: Mapping[str, Any], where: str) -> MrcrRow:
    """A published row; other columns are ignored. Raises DataError for another shape."""
    types = MrcrRow.__annotations__
    for name, kind in types.items():
        if not isinstance(row.get(name), kind):
            found = type(row[name]).__name__ if name in row else "nothing"
            raise DataError(f"{where}: MRCR column {name!r} must be {kind.__name__}, got {found}")
    result = MrcrRow(**{name: row[name] for name in types})
    check_row(result, where)
    return result
