"""What was sent to an endpoint and what it answered, on disk before anything else is done with it.

A request whose answer is here is never sent again, whatever killed the run. One that was in flight when the run was
killed has no answer here; it is sent again under the same idempotency key, and counted. Budgets hold over every run
that uses the file. The key of the endpoint is never written.
"""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from acc_megatron.data_tools.schema import Dropped
from acc_megatron.errors import DataError

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
    """What may be spent in all, over every run with one cache; None is without end."""

    max_requests: int | None = None
    max_tokens: int | None = None


class AnswerCache:
    """The open file. Raises DataError when it is another run's or no cache."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self._budget = budget
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"cannot use the cache {path}: {error}; is another run using it?") from None
        self.num_interrupted = self._number("SELECT count(*) FROM sent WHERE ended IS NULL")
        self.num_hits = 0
        # summed once and carried on from there: nobody else writes while the file is open
        self._num_requests = self._number("SELECT count(*) FROM sent")
        self._num_tokens = self._number("SELECT coalesce(sum(tokens), 0) FROM sent")
        self._reserved: dict[int, int] = {}  # tokens by the number of a request in flight
        # a request that a kill left in flight may have been paid: what was reserved for it stays spent
        self._database.execute("UPDATE sent SET ended = 0 WHERE ended IS NULL")

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._database.close()

    def get(self, key: str) -> dict[str, Any] | None:
        """The outcome of a request that was answered before."""
        row = self._database.execute("SELECT outcome FROM answers WHERE key = ?", (key,)).fetchone()
        self.num_hits += row is not None
        return json.loads(row[0]) if row else None

    def begin(self, key: str, reserved_tokens: int) -> int:
        """Note a request before it is sent; returns its number. Dropped('budget_exhausted') when it is too much."""
        spent, limit = self.spent(), self._budget
        if limit.max_requests is not None and spent["requests"] >= limit.max_requests:
            raise Dropped(
                "budget_exhausted", f"{spent['requests']} requests were sent, the cap is {limit.max_requests}"
            )
        if limit.max_tokens is not None and spent["tokens"] + reserved_tokens > limit.max_tokens:
            detail = f"{spent['tokens']} tokens are spent, up to {reserved_tokens} more pass the cap {limit.max_tokens}"
            raise Dropped("budget_exhausted", detail)
        cursor = self._database.execute("INSERT INTO sent (key, tokens) VALUES (?, ?)", (key, reserved_tokens))
        assert cursor.lastrowid is not None
        self._num_requests += 1
        self._num_tokens += reserved_tokens
        self._reserved[cursor.lastrowid] = reserved_tokens
        return cursor.lastrowid

    def fail(self, number: int, *, tokens: int | None) -> None:
        """A request ended without an answer; `tokens` is what it cost, None where that is unknown."""
        tokens = self._reserved[number] if tokens is None else tokens
        self._database.execute("UPDATE sent SET ended = 1, tokens = ? WHERE id = ?", (tokens, number))
        self._settle(number, tokens)

    def finish(self, number: int, key: str, outcome: dict[str, Any], tokens: int) -> None:
        """A request was answered: durable when this returns."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(outcome)))
        self._database.execute("UPDATE sent SET ended = 1, tokens = ? WHERE id = ?", (tokens, number))
        self._database.execute("COMMIT")
        self._settle(number, tokens)

    def _settle(self, number: int, tokens: int) -> None:
        """What was reserved for a request becomes what it cost."""
        self._num_tokens += tokens - self._reserved.pop(number)

    def spent(self) -> dict[str, int]:
        """Requests sent and tokens spent or reserved, over all runs."""
        return {"requests": self._num_requests, "tokens": self._num_tokens}

    def _number(self, sql: str) -> int:
        return int(self._database.execute(sql).fetchone()[0])
