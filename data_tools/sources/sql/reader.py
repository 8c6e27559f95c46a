"""Reads SQL runs: the complete tables that successful queries or the gold query named, and the gold result.

A run is verified if the row says so (InterCode: the last reward is exactly 1.0), otherwise if its last query gives the
gold result when it runs here again. In both cases the gold query must give here what the row records, and what the
agent saw: another copy of the database can give other rows. Tables and gold result are read from
the SQLite file of the run's database.
"""

from dataclasses import dataclass
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.fields import list_of
from acc_megatron.data_tools.schema import Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.sql.observed_rows import observed_rows, same_as_observed
from acc_megatron.data_tools.sources.sql.observed_text import states_other_rows
from acc_megatron.data_tools.sources.sql.row_fields import gold_query_of
from acc_megatron.data_tools.sources.sql.runs import SqlRun, run_of, same_result
from acc_megatron.data_tools.sources.sql.sqlite_readonly import QueryError, ReadOnlyDatabase, open_readonly
from acc_megatron.data_tools.sources.sql.table_names import has_order_by, table_names, words_of
from acc_megatron.data_tools.sources.sql.table_text import ANSWER_FORM, TableFormat, rows_text, table_text
from acc_megatron.errors import Dropped


def read(row: Row, resources: Resources) -> Trajectory:
    """The verified run of a row. Raises Dropped for a run that is not verified or whose tables are missing."""
    run = run_of(row.value)
    path = resources.database(run.database)
    if path is None:
        raise Dropped("no_database", f"no SQLite file in the inputs and resources is named {run.database!r:.200}")
    try:
        with open_readonly(path) as database:
            gold = _gold_result(row.value, database)
            if not run.is_verified:
                _check_same_answer(run, gold, database)
            _check_observed(run, gold)
            evidence, missing = _tables(run, gold, path.stem.lower(), database, resources.table_format)
    except QueryError as error:
        raise Dropped(f"database_{error.reason}", error.detail) from None
    answer = rows_text(gold.rows)
    return Trajectory(
        id=f"sql-{run.database}-{row.sha256[:16]}",
        agent="sql",
        question=f"{run.question.strip()}\n\n{ANSWER_FORM}",
        evidence=evidence,
        distractors=(),
        reasoning=run.thoughts or "\n\n".join(run.queries),
        reasoning_source="agent" if run.thoughts else "agent_actions",
        answer=answer,
        ground_truth=answer,
        provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        notes={
            "evidence_rule": "queried_and_gold_tables",
            "missing_tables": missing,
            "num_queries": len(run.queries),
            "database": run.database,
            "gold_sql": gold.sql,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gold:
    """The gold query, its result, and whether the order of the rows is part of the result."""

    sql: str
    rows: list[list[Any]]
    is_ordered: bool


def _gold_result(value: dict[str, Any], database: ReadOnlyDatabase) -> _Gold:
    """The result of the gold query here. Raises Dropped if it differs from the recorded result."""
    if value.get("gold_error") is not None:
        raise Dropped("no_ground_truth", f"the row records that the gold query failed: {value['gold_error']!r:.200}")
    gold_sql = gold_query_of(value)
    found = [list(row) for row in database.query(gold_sql).rows]
    is_ordered = has_order_by(gold_sql)
    if not found and (empty := _empty_tables(gold_sql, database)):
        detail = f"the gold query gives no rows, and in this copy of the database these tables have none: {empty}"
        raise Dropped("empty_gold_table", detail)
    if value.get("gold_result") is None:
        return _Gold(sql=gold_sql, rows=found, is_ordered=is_ordered)
    recorded = list_of(value, "gold_result")
    if not all(isinstance(row, list) for row in recorded):
        raise Dropped("malformed", "'gold_result' must be a list of rows")
    if not same_result(found, recorded, ordered=is_ordered):
        raise Dropped("gold_mismatch", f"the gold query gives {len(found)} rows here, the row records {len(recorded)}")
    return _Gold(sql=gold_sql, rows=recorded, is_ordered=is_ordered)


def _empty_tables(gold_sql: str, database: ReadOnlyDatabase) -> list[str]:
    """The tables of the gold query that have no rows."""
    declared = database.table_names()
    named = [declared[table] for table in table_names(gold_sql) if table in declared]
    return [table for table in named if not database.has_rows(table)]


def _check_observed(run: SqlRun, gold: _Gold) -> None:
    """Raise Dropped('gold_mismatch') if the last observation states other rows, and none states the gold result."""
    differ = [_differs(output, gold) for output in run.outputs]
    if differ and differ[-1] and False not in differ:
        raise Dropped(
            "gold_mismatch",
            f"the gold query gives {rows_text(gold.rows)!r:.200} here, the agent saw {run.outputs[-1]!r:.200}",
        )


def _differs(output: str, gold: _Gold) -> bool | None:
    """Whether an observation states other rows than the gold result; None if it states no rows that can be read."""
    if (rows := observed_rows(output)) is not None:
        return not same_as_observed(rows, gold.rows, ordered=gold.is_ordered)
    return states_other_rows(output, gold.rows, ordered=gold.is_ordered, names=words_of(gold.sql))


def _check_same_answer(run: SqlRun, gold: _Gold, database: ReadOnlyDatabase) -> None:
    if not run.queries:
        raise Dropped("no_evidence", "no query succeeded")
    found = [list(row) for row in database.query(run.queries[-1]).rows]
    if not same_result(found, gold.rows, ordered=gold.is_ordered):
        raise Dropped(
            "wrong_answer",
            f"the {len(found)} rows of the last query differ from the {len(gold.rows)} of the gold query",
        )


def _tables(
    run: SqlRun, gold: _Gold, name: str, database: ReadOnlyDatabase, table_format: TableFormat
) -> tuple[tuple[Piece, ...], list[str]]:
    """The complete tables that queries named, then those of the gold query, and the named ones that do not exist."""
    declared = database.table_names()
    queried = list(dict.fromkeys(table for query in run.queries for table in table_names(query)))
    missing = [table for table in queried if table not in declared]
    if len(missing) == len(queried):
        reason = "missing_table" if missing else "no_evidence"
        raise Dropped(reason, f"{len(run.queries)} successful queries; tables not in {run.database!r}: {missing}")
    named = dict.fromkeys([*queried, *table_names(gold.sql)])
    pieces = tuple(
        Piece(
            id=f"{name}.{declared[table]}",
            title=f"Table {declared[table]}",
            text=table_text(database.table(declared[table]), table_format),
            kind="evidence",
        )
        for table in named
        if table in declared
    )
    return pieces, missing
