"""Rows are read from observations without evaluating them."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.sql.observed_rows import observed_rows, same_as_observed


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[(1, 'a'), (2, None)]", [[1, "a"], [2, None]]),
        (" [] ", []),
        ('[["a", null], ["b", true]]', [["a", None], ["b", True]]),
        ("[(b'int', -2.5)]", [["int", -2.5]]),
        ("[(datetime.date(2001, 2, 3), datetime.datetime(2001, 2, 3, 4, 5))]", [["2001-02-03", "2001-02-03 04:05:00"]]),
    ],
)
def test_literals_and_values_of_mysql_are_read(text: str, rows: list[list[Any]]) -> None:
    assert observed_rows(text) == rows


@pytest.mark.parametrize(
    "text",
    [
        "", "Error executing query: no", "name\nAnn", "[1, 2]", "[(1,), ...", "[(open('x'),)]", "[(date(),)]", "{}",
        "[(__import__('os').system('true'),)]", "[(Decimal('x'),)]", "[" * 100_000, "[(" + "-" * 100_000 + "1,)]",
        "[(1 + 1,) * 3]", "[(x for x in 'a')]", "[(1,)]" + " " * (1 << 20) + "x",
    ],
)  # fmt: skip
def test_other_texts_state_no_rows(text: str) -> None:
    assert observed_rows(text) is None


@pytest.mark.parametrize(
    ("text", "rows", "same"),
    [
        ("[(Decimal('3.3333'),)]", [[10 / 3]], True),
        ("[(Decimal('3.3334'),)]", [[10 / 3]], False),
        ("[(Decimal('7'),)]", [[7]], True),
        ("[('a', 1), ('b', 2)]", [["b", 2.0], ["a", 1]], True),
        ("[('a',), ('a',)]", [["a"]], False),
        ("[(1,)]", [["1"]], False),
        ("[(50.31111,)]", [[50.31111111111111]], True),
        ("[(65.4827,), (2.5,)]", [[2.5], [65.48270270270272]], True),
        ("[(50.31112,)]", [[50.31111111111111]], False),
        ("[(50.3,)]", [[50.31111111111111]], False),
        ("[(0.3333333333333333,)]", [[0.33333]], False),
    ],
)
def test_a_number_states_only_its_own_digits(text: str, rows: list[list[Any]], same: bool) -> None:
    found = observed_rows(text)
    assert found is not None and same_as_observed(found, rows, ordered=False) is same
