"""The tables that a query names are found without running it."""

import pytest

from acc_megatron.data_tools.sources.sql.table_names import has_order_by, is_select, table_names


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM Singer", ["singer"]),
        ("select * from `a` as x join b on x.i = b.i left join shop.C using (i)", ["a", "b", "c"]),
        ("SELECT * FROM a, b AS y, c WHERE a.i IN (1, 2)", ["a", "b", "c"]),
        ("SELECT (SELECT max(i) FROM inner_one) FROM (SELECT i FROM deep) AS d", ["inner_one", "deep"]),
        ("SELECT * FROM (a JOIN b ON a.i = b.i), c", ["a", "b", "c"]),
        ("SELECT EXTRACT(YEAR FROM born), TRIM(BOTH 'x' FROM name) FROM people", ["people"]),
        ("SELECT 'from fake' /* from fake */ -- from fake\nFROM real1 # from fake", ["real1"]),
        ("SELECT a IS DISTINCT FROM b FROM t", ["t"]),
        ("WITH RECURSIVE walk(i) AS (SELECT i FROM links UNION SELECT 1 FROM walk), w2 AS (SELECT 1) "
         "SELECT * FROM walk, w2", ["links"]),
        ("SELECT * FROM information_schema.tables", []),
        ("SELECT name FROM sqlite_master", []),
        ("SELECT value FROM json_each('[1]'), t", ["t"]),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY a, b", ["t", "u"]),
        ('SELECT * FROM "Odd Name" WHERE x = "from fake"', ["odd name"]),
        ("SELECT [a b] FROM [Order Details] AS o, dbo.[T2] WHERE x = '[from fake]'", ["order details", "t2"]),
        ("SELECT a FROM t GROUP BY a, b", ["t"]),
        ("SELECT FROM", []),
        ("SELECT a FROM (((", []),
        (")))) SELECT a FROM t", ["t"]),
    ],
)  # fmt: skip
def test_the_tables_of_a_select(sql: str, expected: list[str]) -> None:
    assert table_names(sql) == expected


def test_only_select_statements_are_queries() -> None:
    assert is_select("  (SELECT 1)") and is_select("-- why\nWITH x AS (SELECT 1) SELECT 2")
    assert not any(map(is_select, ["SHOW TABLES", "DESCRIBE t", "DESC t", "INSERT INTO t SELECT 1", "", "submit"]))


def test_order_by_counts_only_outside_strings_and_parentheses() -> None:
    assert has_order_by("SELECT a FROM t order  by a")
    assert has_order_by("SELECT a FROM (SELECT a FROM t) WHERE (a) IN (1) ORDER BY (a)")
    assert not has_order_by("SELECT 'ORDER BY a' FROM t")
    assert not has_order_by("SELECT a FROM t WHERE a = (SELECT b FROM u ORDER BY b LIMIT 1)")
    assert not has_order_by("WITH w AS (SELECT a FROM t ORDER BY a LIMIT 3) SELECT a FROM w")
    assert not has_order_by("SELECT a, rank() OVER (PARTITION BY b ORDER BY a) FROM t")
