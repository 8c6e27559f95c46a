"""SQL runs: the complete tables that successful queries named, and the gold result.

Layouts: InterCode's `turn_history`, and generic tool calls (`messages` or `steps`) beside a database's name. A run
counts as verified when the row says so (InterCode: a last reward of exactly 1.0), or else when its last query, run
again here, gives the gold result; and in any case the gold query has to give the recorded result here. Tables and gold
query are read from the SQLite file of the run's database.
"""

from dataclasses import dataclass
from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.fields import list_of, text_of
from acc_megatron.data_tools.sources.sql_runs import SqlRun, first_text, is_sql_run, run_of, same_result
from acc_megatron.data_tools.sources.table_names import has_order_by, table_names
from acc_megatron.data_tools.sqlite_readonly import QueryError, ReadOnlyDatabase, open_readonly
from acc_megatron.data_tools.table_text import ANSWER_FORM, TableFormat, rows_text, table_text

GOLD_KEYS = ("gold_sql", "gold_query", "SQL", "sql", "query")


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row is a SQL run in a layout that `run_of` reads."""
    return is_sql_run(value)


def read(row: Row, resources: Resources) -> Trajectory:
    """The verified run of a row. Raises Dropped, for one that is not verified or whose tables are not here."""
    run = run_of(row.value)
    path = resources.database(run.database)
    if path is None:
        raise Dropped("no_database", f"no SQLite file named {run.database!r:.200} among inputs and resources")
    try:
        with open_readonly(path) as database:
            gold = _gold_result(row.value, database)
            if not run.is_verified:
                _need_same_answer(run, gold, database)
            evidence, missing = _tables(run, path.stem.lower(), database, resources.table_format)
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
            "evidence_rule": "queried_tables",
            "missing_tables": missing,
            "num_queries": len(run.queries),
            "database": run.database,
            "gold_sql": gold.sql,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gold:
    """The gold query, the rows of its answer, and whether their order is part of it."""

    sql: str
    rows: list[list[Any]]
    is_ordered: bool


def _gold_result(value: dict[str, Any], database: ReadOnlyDatabase) -> _Gold:
    """What the gold query gives here; Dropped when that is not the recorded result."""
    if value.get("gold_error") is not None:
        raise Dropped("no_ground_truth", f"the gold query failed when recorded: {value['gold_error']!r:.200}")
    gold_sql = first_text(value, GOLD_KEYS) or text_of(value, GOLD_KEYS[0])
    found = [list(row) for row in database.query(gold_sql).rows]
    is_ordered = has_order_by(gold_sql)
    if value.get("gold_result") is None:
        return _Gold(sql=gold_sql, rows=found, is_ordered=is_ordered)
    recorded = list_of(value, "gold_result")
    if not all(isinstance(row, list) for row in recorded):
        raise Dropped("malformed", "'gold_result' must be a list of rows")
    if not same_result(found, recorded, ordered=is_ordered):
        raise Dropped("gold_mismatch", f"the gold query gives {len(found)} rows here, {len(recorded)} were recorded")
    return _Gold(sql=gold_sql, rows=recorded, is_ordered=is_ordered)


def _need_same_answer(run: SqlRun, gold: _Gold, database: ReadOnlyDatabase) -> None:
    if not run.queries:
        raise Dropped("no_evidence", "no successful query")
    found = [list(row) for row in database.query(run.queries[-1]).rows]
    if not same_result(found, gold.rows, ordered=gold.is_ordered):
        raise Dropped("wrong_answer", f"the last query gives {len(found)} rows that are not the gold {len(gold.rows)}")


def _tables(
    run: SqlRun, name: str, database: ReadOnlyDatabase, table_format: TableFormat
) -> tuple[tuple[Piece, ...], list[str]]:
    """The complete tables that queries named, in the order met, and the names the database `name` does not have."""
    declared = database.table_names()
    named = list(dict.fromkeys(table for query in run.queries for table in table_names(query)))
    missing = [table for table in named if table not in declared]
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
    if not pieces:
        reason = "missing_table" if missing else "no_evidence"
        raise Dropped(reason, f"{len(run.queries)} successful queries; tables not in {run.database!r}: {missing}")
    return pieces, missing
