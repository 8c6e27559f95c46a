"""Each setting that protects an untrusted database works on its own, without the authorizer in front of it."""

import sqlite3
import sys
from pathlib import Path

import pytest
from support.commands import run_command

from acc_megatron.data_tools.sources.sql import sqlite_readonly
from acc_megatron.data_tools.sources.sql.sqlite_readonly import QueryError, open_readonly


@pytest.fixture
def wal_database(tmp_path: Path) -> Path:
    """A database in WAL mode with a view that calls a function of the application."""
    path = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.create_function("leak", 0, lambda: 1)
    connection.executescript(
        "PRAGMA journal_mode = WAL; CREATE TABLE Goods (name); INSERT INTO Goods VALUES ('tea');"
        "CREATE VIEW Leak AS SELECT leak() AS a"
    )
    connection.close()
    return path


@pytest.fixture
def no_authorizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_readonly, "_authorize", lambda *_: sqlite3.SQLITE_OK)


def error_of(path: Path, sql: str) -> str:
    with open_readonly(path) as database, pytest.raises(QueryError) as error:
        database.query(sql)
    return str(error.value)


@pytest.mark.parametrize("sql", ["SELECT sqlite_compileoption_get(0)", "SELECT fts3_tokenizer('simple')"])
def test_functions_that_reveal_or_reach_the_machine_are_refused(wal_database: Path, sql: str) -> None:
    assert error_of(wal_database, sql).startswith("not_allowed: not authorized to use function")


def test_reading_a_database_in_wal_mode_creates_no_file(wal_database: Path) -> None:
    with open_readonly(wal_database) as database:
        assert database.query("SELECT name FROM Goods").rows == (("tea",),)
        assert [path.name for path in wal_database.parent.iterdir()] == [wal_database.name]


@pytest.mark.usefixtures("no_authorizer")
def test_query_only_refuses_temporary_tables(wal_database: Path) -> None:
    assert error_of(wal_database, "CREATE TEMP TABLE t (a)") == "sql_error: attempt to write a readonly database"


@pytest.mark.usefixtures("no_authorizer")
def test_no_second_database_can_be_attached(wal_database: Path) -> None:
    assert error_of(wal_database, "ATTACH ':memory:' AS other") == "sql_error: too many attached databases - max 0"


def test_a_view_of_the_file_cannot_call_functions_of_the_application(wal_database: Path) -> None:
    with open_readonly(wal_database) as database:
        database._connection.create_function("leak", 0, lambda: 1)
        assert database.query("SELECT leak()").rows == ((1,),)
        with pytest.raises(QueryError, match="unsafe use of leak"):
            database.query("SELECT a FROM Leak")


def test_the_memory_of_a_query_is_limited(wal_database: Path) -> None:
    """In a process of its own, because SQLite cannot raise the limit of a process again."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from acc_megatron.data_tools.sources.sql import sqlite_readonly as module\n"
        "module._HEAP_BYTES = 8 << 20\n"
        "sql = '''WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500),\n"
        "t AS (SELECT hex(zeroblob(30000)) || i AS a FROM n ORDER BY a)\n"
        "SELECT count(*) FROM t, t AS u WHERE u.a = t.a'''\n"
        "try:\n    with module.open_readonly(Path(sys.argv[1])) as database: print(database.query(sql).rows)\n"
        "except module.QueryError as error: print(error.reason)"
    )
    done = run_command([sys.executable, "-c", code, str(wal_database)])
    assert done.stdout.strip() == "memory_limit", done.stdout + done.stderr
