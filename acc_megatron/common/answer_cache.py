"""A file of requests to an endpoint and their answers; an answer is on disk before it is used.

A request with an answer in the file is never sent again, even after a kill. A request that was in flight when a run was
killed has no answer; it is sent again with the same idempotency key, and counted. Budgets apply to all runs that use
the file together. The API key is never written.
"""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from acc_megatron.errors import DataError, Dropped

_SCHEMA = """
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sent (id INTEGER PRIMARY KEY, key TEXT NOT NULL, tokens INTEGER NOT NULL, ended INTEGER);
BEGIN IMMEDIATE; COMMIT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that all runs with one cache may spend together; None means no limit."""

    max_requests: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Requests, the tokens that the endpoint counted in its answers, and tokens that nobody counted.

    The latter are of requests in flight, interrupted or without a count: as many as they may have cost.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    other_tokens: int


class AnswerCache:
    """The open file. Raises DataError when another run uses it, or it is not a cache."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self._budget = budget
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"cannot use the cache {path}: {error}; is another run using it?") from None
        self.num_interrupted = self._number("SELECT count(*) FROM sent WHERE ended IS NULL")
        self.num_hits = 0
        # summed once and then updated: no other process writes while the file is open
        self._num_requests = self._number("SELECT count(*) FROM sent")
        self._num_tokens = self._number("SELECT coalesce(sum(tokens), 0) FROM sent")
        self._num_input_tokens = self._counted("prompt_tokens")
        self._num_output_tokens = self._counted("completion_tokens")
        self._reserved: dict[int, int] = {}  # by number of the request, for requests in flight
        # requests that a kill interrupted may have been billed: their reserved tokens count as spent
        self._database.execute("UPDATE sent SET ended = 0 WHERE ended IS NULL")

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._database.close()

    def get(self, key: str) -> dict[str, Any] | None:
        """The outcome of a request, or None where it was not answered yet."""
        row = self._database.execute("SELECT outcome FROM answers WHERE key = ?", (key,)).fetchone()
        self.num_hits += row is not None
        return json.loads(row[0]) if row else None

    def begin(self, key: str, reserved_tokens: int) -> int:
        """Record a request before it is sent; returns its number. Raises Dropped('budget_exhausted')."""
        spent, limit = self.spent(), self._budget
        if limit.max_requests is not None and spent["requests"] >= limit.max_requests:
            raise Dropped(
                "budget_exhausted", f"{spent['requests']} requests were sent, the limit is {limit.max_requests}"
            )
        if limit.max_tokens is not None and spent["tokens"] + reserved_tokens > limit.max_tokens:
            detail = f"{spent['tokens']} tokens spent, {reserved_tokens} more could exceed the limit {limit.max_tokens}"
            raise Dropped("budget_exhausted", detail)
        cursor = self._database.execute("INSERT INTO sent (key, tokens) VALUES (?, ?)", (key, reserved_tokens))
        assert cursor.lastrowid is not None
        self._num_requests += 1
        self._num_tokens += reserved_tokens
        self._reserved[cursor.lastrowid] = reserved_tokens
        return cursor.lastrowid

    def fail(self, number: int, *, tokens: int | None) -> None:
        """Record that a request ended without an answer; `tokens` is its cost, None where that is unknown."""
        tokens = self._reserved[number] if tokens is None else tokens
        self._database.execute("UPDATE sent SET ended = 1, tokens = ? WHERE id = ?", (tokens, number))
        self._settle(number, tokens)

    def finish(self, number: int, key: str, outcome: dict[str, Any], tokens: int) -> None:
        """Record an answer; it is on disk when this returns."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(outcome)))
        self._database.execute("UPDATE sent SET ended = 1, tokens = ? WHERE id = ?", (tokens, number))
        self._database.execute("COMMIT")
        self._num_input_tokens += outcome.get("prompt_tokens", 0)
        self._num_output_tokens += outcome.get("completion_tokens", 0)
        self._settle(number, tokens)

    def _settle(self, number: int, tokens: int) -> None:
        """Replace the tokens reserved for a request by its cost."""
        self._num_tokens += tokens - self._reserved.pop(number)

    def spent(self) -> dict[str, int]:
        """Requests sent, and tokens spent or reserved, in all runs."""
        return {"requests": self._num_requests, "tokens": self._num_tokens}

    def used(self) -> Usage:
        """What all runs with this file have used."""
        return Usage(
            requests=self._num_requests,
            input_tokens=self._num_input_tokens,
            output_tokens=self._num_output_tokens,
            other_tokens=max(0, self._num_tokens - self._num_input_tokens - self._num_output_tokens),
        )

    def _counted(self, name: str) -> int:
        return self._number(f"SELECT coalesce(sum(json_extract(outcome, '$.{name}')), 0) FROM answers")

    def _number(self, sql: str) -> int:
        return int(self._database.execute(sql).fetchone()[0])
