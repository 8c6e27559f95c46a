"""SQL runs of the InterCode shape: the complete tables that successful queries named, and the gold result.

A run counts as verified when its last reward is exactly 1.0 and the gold query, run again here, gives the
recorded result. Tables and gold query are read from the SQLite file of the run's database.
"""

import re
from collections import Counter
from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.fields import list_of, object_of, text_of, texts_of
from acc_megatron.data_tools.sources.table_names import has_order_by, is_select, table_names
from acc_megatron.data_tools.sqlite_readonly import QueryError, ReadOnlyDatabase, open_readonly
from acc_megatron.data_tools.table_text import ANSWER_FORM, TableFormat, rows_text, table_text

_EXECUTE = re.compile(r"\s*execute\[(.*)\]\s*", re.DOTALL)
_ERROR = "Error executing query"


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row has InterCode's shape."""
    return "turn_history" in value and "question" in value and ("db" in value or "gold_sql" in value)


def read(row: Row, resources: Resources) -> Trajectory:
    """The verified run of a row. Raises Dropped, for one that is not verified or whose tables are not here."""
    value, history = row.value, object_of(row.value, "turn_history")
    question, name = text_of(value, "question"), text_of(value, "db")
    _need_reward(list_of(history, "rewards"))
    queries = executed_queries(texts_of(history, "actions"), texts_of(history, "observations"))
    path = resources.database(name)
    if path is None:
        raise Dropped("no_database", f"no SQLite file named {name!r} among inputs and resources")
    try:
        with open_readonly(path) as database:
            gold = _gold_result(value, database)
            evidence, missing = _tables(queries, name, database, resources.table_format)
    except QueryError as error:
        raise Dropped(f"database_{error.reason}", error.detail) from None
    thoughts = "\n\n".join(thought.strip() for thought in _thoughts(history) if thought.strip())
    answer = rows_text(gold)
    return Trajectory(
        id=f"sql-{name}-{row.sha256[:16]}",
        agent="sql",
        question=f"{question.strip()}\n\n{ANSWER_FORM}",
        evidence=evidence,
        distractors=(),
        reasoning=thoughts or "\n\n".join(queries),
        reasoning_source="agent" if thoughts else "agent_actions",
        answer=answer,
        ground_truth=answer,
        provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        notes={
            "evidence_rule": "queried_tables",
            "missing_tables": missing,
            "num_queries": len(queries),
            "database": name,
            "gold_sql": text_of(value, "gold_sql"),
        },
    )


def executed_queries(actions: list[str], observations: list[str]) -> list[str]:
    """The SELECTs among the actions, bare or inside `execute[...]`, that were answered without an error."""
    if len(actions) != len(observations):
        raise Dropped("malformed", f"{len(actions)} actions but {len(observations)} observations")
    queries = []
    for action, observation in zip(actions, observations, strict=True):
        wrapped = _EXECUTE.fullmatch(action)
        query = (wrapped[1] if wrapped else action).strip()
        if is_select(query) and not observation.startswith(_ERROR):
            queries.append(query)
    return queries


def same_result(found: list[list[Any]], expected: list[list[Any]], *, ordered: bool) -> bool:
    """Whether two results agree: as multisets unless `ordered`; 1 equals 1.0, fractions to 9 digits."""
    left, right = [[tuple(_comparable(cell) for cell in row) for row in rows] for rows in (found, expected)]
    return left == right if ordered else Counter(left) == Counter(right)


def _need_reward(rewards: list[Any]) -> None:
    last = rewards[-1] if rewards else None
    if isinstance(last, bool) or not isinstance(last, int | float):
        raise Dropped("malformed", f"the last reward must be a number, got {last!r}")
    if last != 1.0:
        raise Dropped("wrong_answer", f"the last reward is {last}, not 1.0")


def _gold_result(value: dict[str, Any], database: ReadOnlyDatabase) -> list[list[Any]]:
    """What the gold query gives here; Dropped when that is not the recorded result."""
    if value.get("gold_error") is not None:
        raise Dropped("no_ground_truth", f"the gold query failed when recorded: {value['gold_error']!r:.200}")
    gold_sql = text_of(value, "gold_sql")
    found = [list(row) for row in database.query(gold_sql).rows]
    if value.get("gold_result") is None:
        return found
    recorded = list_of(value, "gold_result")
    if not all(isinstance(row, list) for row in recorded):
        raise Dropped("malformed", "'gold_result' must be a list of rows")
    if not same_result(found, recorded, ordered=has_order_by(gold_sql)):
        raise Dropped("gold_mismatch", f"the gold query gives {len(found)} rows here, {len(recorded)} were recorded")
    return recorded


def _tables(
    queries: list[str], name: str, database: ReadOnlyDatabase, table_format: TableFormat
) -> tuple[tuple[Piece, ...], list[str]]:
    """The complete tables that queries named, in the order met, and the names this database does not have."""
    declared = database.table_names()
    named = list(dict.fromkeys(table for query in queries for table in table_names(query)))
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
        raise Dropped(reason, f"{len(queries)} successful queries; tables not in {name}: {missing}")
    return pieces, missing


def _thoughts(history: dict[str, Any]) -> list[str]:
    return texts_of(history, "thoughts") if history.get("thoughts") is not None else []


def _comparable(cell: Any) -> Any:
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() else float(f"{cell:.9g}")
    return cell if isinstance(cell, int | str | None) else str(cell)
