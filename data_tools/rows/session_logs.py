"""Session logs of coding agents: files of JSON lines in which each line is one event, and the file is one run."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from acc_megatron.common.json_rows import MAX_ROW_BYTES, BadRow, Row, digest

SESSION_KEY = "session_log"
_CLAUDE_KEYS = {"uuid", "leafUuid", "sessionId", "messageId"}
_LISTS = {"messages", "conversations", "conversation", "history"}  # of rows, each of which is a run of its own
_CODEX_TYPES = {"session_meta", "turn_context", "response_item", "event_msg", "compacted"}


def session_log_kind(value: dict[str, Any]) -> str | None:
    """Which agent's log an object is one event of: claude-code, codex, gemini-cli or openhands; None for any other."""
    kind = value.get("type")
    if isinstance(kind, str):
        if kind in _CODEX_TYPES and isinstance(value.get("payload"), dict):
            return "codex"
        if not _CLAUDE_KEYS.isdisjoint(value) and _LISTS.isdisjoint(value):
            return "claude-code"
    if {"id", "timestamp", "instructions"} <= value.keys() and _LISTS.isdisjoint(value):
        return "codex"
    if {"sessionId", "projectHash"} <= value.keys() and _LISTS.isdisjoint(value):
        return "gemini-cli"
    is_event = "timestamp" in value and "source" in value and ("action" in value or "observation" in value)
    return "openhands" if is_event else None


def whole_session(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows of a file of JSON lines; one row with all events, in order, if the first row is an event of a session.

    Unreadable lines of a session stay bad rows. A session over MAX_ROW_BYTES is one bad row.
    """
    rows = iter(rows)
    first = next(rows, None)
    kind = session_log_kind(first.value) if isinstance(first, Row) else None
    if first is None or kind is None:
        yield from () if first is None else chain((first,), rows)
        return
    assert isinstance(first, Row)
    events = [first.value]
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        elif row.byte_offset > MAX_ROW_BYTES:
            detail = f"the {kind} session has more than {MAX_ROW_BYTES} bytes"
            yield BadRow(file=first.file, line=1, byte_offset=0, reason="file_too_large", detail=detail)
            return
        else:
            events.append(row.value)
    if kind == "codex":  # the logs of 2025 have no envelopes
        events = [event if "payload" in event else {"type": "response_item", "payload": event} for event in events]
    key = "history" if kind == "openhands" else "messages"
    value = {key: events, SESSION_KEY: kind}
    yield Row(value=value, file=first.file, line=first.line, byte_offset=first.byte_offset, sha256=digest(events))
