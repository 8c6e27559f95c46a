"""Reads untrusted SQLite files and runs untrusted SQL: nothing is written, and every query has limits.

Three independent settings refuse writes: the file is opened read-only and immutable, `query_only` is on, and the
authorizer allows only SELECT, READ, RECURSIVE and harmless functions. See https://www.sqlite.org/security.html.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

Value = None | int | float | str | bytes

MAGIC = b"SQLite format 3\0"
_MAX_VALUE_BYTES = 16 << 20  # of a cell of a table
_MAX_QUERY_VALUE_BYTES = (
    128 << 10
)  # of a value in a query: the time of functions such as instr and trim is quadratic in it
_MAX_SQL_BYTES = 1 << 20
_HEAP_BYTES = 256 << 20
_INSTRUCTIONS_PER_CHECK = 10_000
_NAMES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
_VIEWS = "SELECT name FROM sqlite_master WHERE type = 'view'"
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_REFUSED_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlite_compileoption_get"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The complete result of a query, or the complete contents of a table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one query; to exceed one is an error, never a shorter result."""

    seconds: float = 10.0
    num_rows: int = 1_000_000
    num_bytes: int = 64 << 20


class QueryError(Exception):
    """A query that was refused or failed; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ReadOnlyDatabase:
    """An open database; `open_readonly` makes one."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits

    def table_names(self) -> dict[str, str]:
        """Tables and views: lower-case name -> declared name (SQLite ignores the case of names)."""
        names = [str(name) for (name,) in self.query(_NAMES).rows]
        return {name.lower(): name for name in names if not name.lower().startswith("sqlite_")}

    def table(self, name: str) -> Table:
        """The complete contents of one table, in the order SQLite stores it."""
        quoted = name.replace('"', '""')
        is_view = any(declared == name for (declared,) in self.query(_VIEWS).rows)
        return self._run(f'SELECT * FROM "{quoted}"', _MAX_QUERY_VALUE_BYTES if is_view else _MAX_VALUE_BYTES)

    def has_rows(self, name: str) -> bool:
        """Whether a table or view contains a row."""
        quoted = name.replace('"', '""')
        return bool(self.query(f'SELECT 1 FROM "{quoted}" LIMIT 1').rows)

    def query(self, sql: str) -> Table:
        """Run one SELECT.

        Raises QueryError with reason not_allowed, time_limit, row_limit, byte_limit, memory_limit or sql_error.
        """
        return self._run(sql, _MAX_QUERY_VALUE_BYTES)

    def _run(self, sql: str, max_value_bytes: int) -> Table:
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_value_bytes)
        deadline = time.monotonic() + self._limits.seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_PER_CHECK)
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(sql)
                if cursor.description is None:
                    raise QueryError("sql_error", "the statement has no result")
                columns = tuple(column[0] for column in cursor.description)
                return Table(columns=columns, rows=tuple(self._rows(cursor)))
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            raise QueryError(_reason(error), str(error) or type(error).__name__) from None

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Value, ...]]:
        num_bytes = 0
        for num_rows, row in enumerate(cursor, start=1):
            num_bytes += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if num_rows > self._limits.num_rows:
                raise QueryError("row_limit", f"more than {self._limits.num_rows} rows")
            if num_bytes > self._limits.num_bytes:
                raise QueryError("byte_limit", f"more than {self._limits.num_bytes} bytes")
            yield row


@contextmanager
def open_readonly(path: Path, limits: Limits | None = None) -> Iterator[ReadOnlyDatabase]:
    """Open an untrusted SQLite file; neither the file nor its folder is ever written.

    Raises QueryError: not_a_database, or unfinished_transaction if the file has a journal that is not empty.
    """
    for suffix in ("-wal", "-journal"):
        journal = path.with_name(path.name + suffix)
        if journal.is_file() and journal.stat().st_size:
            raise QueryError(
                "unfinished_transaction", f"{journal} is not empty: close {path.name} in the program that writes it"
            )
    _check_complete(path)
    uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000)
        for pragma in (
            "query_only = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            f"hard_heap_limit = {_HEAP_BYTES}",  # of the whole process
        ):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.set_authorizer(_authorize)
        yield ReadOnlyDatabase(connection, limits or Limits())


def is_database(path: Path) -> bool:
    """Whether the file begins with SQLite's header."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _check_complete(path: Path) -> None:
    """Check the size against the header, because SQLite reads the missing end of a truncated file as zeros."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(MAGIC):
        raise QueryError("not_a_database", f"{path} does not begin with SQLite's header")
    page_bytes, num_pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    expected = (1 << 16 if page_bytes == 1 else page_bytes) * num_pages
    if path.stat().st_size < expected:
        raise QueryError("not_a_database", f"{path} has {path.stat().st_size} bytes and its header states {expected}")


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _reason(error: BaseException) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_AUTH or "prohibited" in str(error) or "not authorized" in str(error):
        return "not_allowed"
    if code == sqlite3.SQLITE_INTERRUPT:
        return "time_limit"
    if isinstance(error, MemoryError) or code in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG):
        return "memory_limit"
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "not_a_database"
    return "sql_error"
