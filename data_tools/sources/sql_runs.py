"""The queries of a SQL run in each layout, and whether its row says that it was right."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.sources.fields import embedded_object, list_of, object_of, text_of, texts_of
from acc_megatron.data_tools.sources.table_names import is_select
from acc_megatron.data_tools.sources.transcript import Step, has_transcript, transcript_of
from acc_megatron.data_tools.sources.verdict import says_failed, says_succeeded

DATABASE_KEYS = ("db", "db_id", "database", "db_name")
_SQL_ARGUMENTS = ("sql", "query", "sql_query", "statement", "command", "code", "input")
_EXECUTE = re.compile(r"\s*execute\[(.*)\]\s*", re.DOTALL)
_ERROR = "Error executing query"
_FAILED = re.compile(
    r"\W{0,3}(?:sqlite3?\.|mysql\.|psycopg2?\.)?(?:\w{0,40}error\b|error|exception|traceback|execution failed|no such)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRun:
    """A run reduced to its successful SELECTs; `is_verified` when its row says that it was right."""

    database: str
    question: str
    queries: list[str]
    thoughts: str
    is_verified: bool


def is_sql_run(value: dict[str, Any]) -> bool:
    """Whether a row has InterCode's shape, or holds tool calls beside a database's name."""
    has_database = any(isinstance(value.get(key), str) for key in DATABASE_KEYS)
    if "turn_history" in value:
        return "question" in value and (has_database or "db" in value or "gold_sql" in value)
    return has_database and has_transcript(value)


def run_of(value: dict[str, Any]) -> SqlRun:
    """The run of a row. Raises Dropped: malformed, or wrong_answer when the row itself says so."""
    return _of_turns(value) if "turn_history" in value else _of_calls(value)


def first_text(value: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The first of the keys that holds text, else ''."""
    return next((value[key] for key in keys if isinstance(value.get(key), str) and value[key].strip()), "")


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


def _of_turns(value: dict[str, Any]) -> SqlRun:
    history = object_of(value, "turn_history")
    question, name = text_of(value, "question"), text_of(value, "db")
    _need_reward(list_of(history, "rewards"))
    queries = executed_queries(texts_of(history, "actions"), texts_of(history, "observations"))
    thoughts = texts_of(history, "thoughts") if history.get("thoughts") is not None else []
    text = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
    return SqlRun(database=name, question=question, queries=queries, thoughts=text, is_verified=True)


def _of_calls(value: dict[str, Any]) -> SqlRun:
    if says_failed(value):
        raise Dropped("wrong_answer", "the row says that the run failed")
    transcript = transcript_of(value)
    question = first_text(value, ("question",)) or transcript.prompt
    if not question.strip():
        raise Dropped("no_question", "no 'question' and no user message")
    queries = [query for step in transcript.steps if (query := _query(step)) and not _is_error(step.output)]
    return SqlRun(
        database=first_text(value, DATABASE_KEYS),
        question=question,
        queries=queries,
        thoughts=transcript.thoughts(),
        is_verified=says_succeeded(value),
    )


def _query(step: Step) -> str:
    """The SELECT that a call runs, or ''."""
    query = step.argument(*_SQL_ARGUMENTS).strip()
    return query if is_select(query) else ""


def _is_error(output: str) -> bool:
    text = output.strip()
    return _FAILED.match(text) is not None or (text.startswith("{") and bool(embedded_object(text).get("error")))


def _need_reward(rewards: list[Any]) -> None:
    last = rewards[-1] if rewards else None
    if isinstance(last, bool) or not isinstance(last, int | float):
        raise Dropped("malformed", f"the last reward must be a number, got {last!r}")
    if last != 1.0:
        raise Dropped("wrong_answer", f"the last reward is {last}, not 1.0")


def _comparable(cell: Any) -> Any:
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() else float(f"{cell:.9g}")
    return cell if isinstance(cell, int | str | None) else str(cell)
