"""SQL from a trajectory can only read, and has limits."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.data_tools.sources.sql.sqlite_readonly import Limits, QueryError, Table, open_readonly

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """CREATE TABLE Goods (name TEXT, price REAL, "odd ""name" BLOB);
        INSERT INTO Goods VALUES ('tea', 2.5, x'00ff'), ('salt', NULL, NULL);
        CREATE INDEX ByName ON Goods (name);
        CREATE VIEW Cheap AS SELECT name FROM Goods WHERE price < 3;"""
    )
    connection.close()
    return path


def run(path: Path, sql: str, **limits: Any) -> Table:
    with open_readonly(path, Limits(**limits)) as database:
        return database.query(sql)


def test_a_table_comes_back_complete_and_names_are_found_in_any_case(path: Path) -> None:
    with open_readonly(path) as database:
        assert database.table_names() == {"goods": "Goods", "cheap": "Cheap"}
        table = database.table("goods")
    assert table.columns == ("name", "price", 'odd "name')
    assert table.rows == (("tea", 2.5, b"\x00\xff"), ("salt", None, None))


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO Goods VALUES ('x', 1, NULL)",
        "UPDATE Goods SET price = 0",
        "DELETE FROM Goods",
        "DROP TABLE Goods",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH 'other.sqlite' AS other",
        "PRAGMA query_only = OFF",
        "PRAGMA table_info(Goods)",
        "SELECT * FROM pragma_table_info('Goods')",
        "VACUUM INTO 'copy.sqlite'",
        "REINDEX",
        "BEGIN",
        "SELECT load_extension('x')",
        "EXPLAIN INSERT INTO Goods VALUES ('x', 1, NULL)",
    ],
)
def test_every_statement_except_select_is_refused_and_changes_no_file(
    path: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    before = path.read_bytes()
    with pytest.raises(QueryError) as error:
        run(path, sql)
    assert error.value.reason == "not_allowed", error.value
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_endless_query_stops_at_the_time_limit(path: Path) -> None:
    with pytest.raises(QueryError) as error:
        run(path, ENDLESS + "SELECT count(*) FROM n", seconds=0.2)
    assert error.value.reason == "time_limit"


def test_too_many_rows_or_bytes_raise_an_error_instead_of_a_shorter_result(path: Path) -> None:
    assert len(run(path, ENDLESS + "SELECT i FROM n LIMIT 10", num_rows=10).rows) == 10
    with pytest.raises(QueryError) as rows_error:
        run(path, ENDLESS + "SELECT i FROM n LIMIT 11", num_rows=10)
    with pytest.raises(QueryError) as bytes_error:
        run(path, ENDLESS + "SELECT hex(zeroblob(500)) FROM n", num_bytes=10_000)
    assert (rows_error.value.reason, bytes_error.value.reason) == ("row_limit", "byte_limit")


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "SELECT nothing FROM Goods", "SELECT 'a\0b'", "", "SHOW TABLES"])
def test_invalid_sql_raises_an_error_with_a_reason(path: Path, sql: str) -> None:
    with pytest.raises(QueryError) as error:
        run(path, sql)
    assert error.value.reason == "sql_error"


def test_a_huge_value_is_refused(path: Path) -> None:
    with pytest.raises(QueryError) as error:
        run(path, "SELECT zeroblob(1000000000)")
    assert error.value.reason == "memory_limit"


def test_a_file_that_is_not_a_complete_database_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database")
    (tmp_path / "cut.sqlite").write_bytes(path.read_bytes()[:-1000])  # SQLite itself would read zeros there
    for name in ("text.sqlite", "cut.sqlite"):
        with pytest.raises(QueryError) as error:
            run(tmp_path / name, "SELECT * FROM Goods")
        assert error.value.reason == "not_a_database"


def test_a_database_with_an_unfinished_transaction_is_refused(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"x")
    with pytest.raises(QueryError) as error:
        run(path, "SELECT 1")
    assert error.value.reason == "unfinished_transaction"


def test_a_read_only_file_with_an_odd_name_opens(tmp_path: Path, path: Path) -> None:
    odd = path.rename(tmp_path / "a?mode=rwc#%20.sqlite")
    odd.chmod(0o400)
    assert len(run(odd, "SELECT * FROM Goods").rows) == 2


@pytest.mark.parametrize(
    "expression",
    [
        "instr(replace(hex(zeroblob(4000000)), '0', 'a'), replace(hex(zeroblob(2000000)), '0', 'a') || 'b')",
        "trim(replace(hex(zeroblob(60000)), '0', 'a'), replace(hex(zeroblob(30000)), '0', 'b') || 'a')",
        "replace(hex(zeroblob(4000000)), '00', 'abc')",
    ],
)
def test_a_function_that_would_run_for_hours_inside_one_step_is_refused(path: Path, expression: str) -> None:
    with pytest.raises(QueryError) as error:
        run(path, f"SELECT {expression}")
    assert error.value.reason == "memory_limit"


def test_a_large_cell_is_read_with_its_table_but_not_by_a_query(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE Big (a); INSERT INTO Big VALUES (zeroblob(1000000)); CREATE VIEW V AS SELECT * FROM Big"
    )
    connection.close()
    with open_readonly(path) as database:
        assert database.table("Big").rows == ((bytes(1_000_000),),)
        for read in (lambda: database.query("SELECT a FROM Big"), lambda: database.table("V")):
            with pytest.raises(QueryError) as error:
                read()
            assert error.value.reason == "memory_limit"
