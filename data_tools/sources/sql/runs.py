"""The queries of a SQL run, and whether its row says that the answer is correct."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_object, list_of, text_of, texts_of
from acc_megatron.data_tools.sources.formats.intercode import (
    history_of,
    is_log_of_person,
    observations_of,
    query_of,
    thoughts_of,
)
from acc_megatron.data_tools.sources.formats.known_formats import has_run_of, transcript_of
from acc_megatron.data_tools.sources.formats.log_format import Step, Transcript
from acc_megatron.data_tools.sources.sql.row_fields import database_of, question_of, unfenced, with_hint
from acc_megatron.data_tools.sources.sql.table_names import is_select
from acc_megatron.data_tools.sources.verdict import says_failed, says_succeeded
from acc_megatron.errors import Dropped

_SQL_ARGUMENTS = ("sql", "query", "sql_query", "statement", "command", "code", "input")
_QUESTION_MARK, _NEXT_QUESTION = "User Query:\n", "\nFollow-up question: "
_CLIENT = re.compile(r"\s{0,8}(?:sqlite3|duckdb|mysql|psql)\s")
_ASK_TOOLS = {"ask", "ask_user", "ask_human"}
_ERROR = "Error executing query"
_FAILED = re.compile(
    r"\W{0,3}(?:sqlite3?\.|mysql\.|psycopg2?\.)?(?:\w{0,40}error\b|error|exception|traceback|execution failed|no such)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRun:
    """A run with its successful SELECTs; `is_verified` if its row says that the answer is correct.

    `outputs` are observations of which one must state the gold result: the rewarded one, those of all SELECTs if the
    row judges the run as a whole, or that of the last SELECT if nobody judged it.
    """

    database: str
    question: str
    queries: list[str]
    thoughts: str
    is_verified: bool
    outputs: list[str] = field(default_factory=list)


def is_sql_run(value: dict[str, Any]) -> bool:
    """Whether a row is an InterCode run, or has tool calls and the name of a database."""
    if _has_turns(value):
        has_database = bool(database_of(value)) or "db" in value or "gold_sql" in value
        return bool(value.get("question") or question_of(value)) and has_database
    return bool(database_of(value)) and has_run_of("sql", value)


def run_of(value: dict[str, Any]) -> SqlRun:
    """The run of a row. Raises Dropped: malformed, or wrong_answer if the row says that the run failed."""
    return _of_turns(value) if _has_turns(value) else _of_calls(value)


def _has_turns(value: dict[str, Any]) -> bool:
    return "turn_history" in value or is_log_of_person(value)


def executed_queries(actions: list[str], observations: list[str]) -> list[str]:
    """The SELECTs among the actions, bare or inside `execute[...]`, whose observation is not an error."""
    if len(actions) != len(observations):
        raise Dropped("malformed", f"{len(actions)} actions and {len(observations)} observations")
    queries = []
    for action, observation in zip(actions, observations, strict=True):
        query = query_of(action)
        if is_select(query) and not observation.startswith(_ERROR):
            queries.append(query)
    return queries


def same_result(found: list[list[Any]], expected: list[list[Any]], *, ordered: bool) -> bool:
    """Whether two results are equal: as multisets unless `ordered`; 1 equals 1.0, and 9 digits of fractions count."""
    left, right = [[tuple(_comparable(cell) for cell in row) for row in rows] for rows in (found, expected)]
    return left == right if ordered else Counter(left) == Counter(right)


def _of_turns(value: dict[str, Any]) -> SqlRun:
    history = history_of(value)
    question = question_of(value) or text_of(value, "question")
    name = database_of(value) or text_of(value, "db")
    _check_reward(list_of(history, "rewards"))
    observations = observations_of(history)
    queries = executed_queries(texts_of(history, "actions"), observations)
    text = "\n\n".join(thought.strip() for thought in thoughts_of(history) if thought.strip())
    return SqlRun(
        database=name,
        question=with_hint(question, value),
        queries=queries,
        thoughts=text,
        is_verified=True,
        outputs=observations[-1:],
    )


def _of_calls(value: dict[str, Any]) -> SqlRun:
    if says_failed(value):
        raise Dropped("wrong_answer", "the row says that the run failed")
    own = question_of(value)
    transcript = _until_next_question(_transcript(value)).of_one_question(own)
    question = _clarified(own or _asked(transcript.prompt), transcript.steps)
    if not question.strip():
        raise Dropped("no_question", "no 'question' and no user message")
    steps = [step for step in transcript.steps if _query(step) and not _is_error(step.output)]
    is_verified = says_succeeded(value)
    return SqlRun(
        database=database_of(value),
        question=with_hint(question, value),
        queries=[_query(step) for step in steps],
        thoughts=transcript.thoughts(),
        is_verified=is_verified,
        outputs=[step.output for step in (steps if is_verified else steps[-1:])],
    )


def _asked(prompt: str) -> str:
    """The question of a prompt; BIRD-Interact and LiveSQLBench write what the agent may do after it."""
    _, mark, rest = prompt.partition(_QUESTION_MARK)
    return rest.partition("\n\nYou have ")[0] if mark else prompt


def _until_next_question(run: Transcript) -> Transcript:
    """The run up to the output that accepts the answer and asks the next question (BIRD-Interact)."""
    end = next((number for number, step in enumerate(run.steps, start=1) if _NEXT_QUESTION in step.output), None)
    requests = tuple(request for request in run.later_requests if end is None or request.num_steps < end)
    return replace(run, steps=run.steps[:end], later_requests=requests)


def _clarified(question: str, steps: tuple[Step, ...]) -> str:
    """The question with what the agent asked the user about it, and the replies."""
    asked = [step for step in steps if step.tool.lower() in _ASK_TOOLS and step.output.strip()]
    return "\n\n".join([question, *(f"{step.argument('question')}\n{step.output.strip()}".strip() for step in asked)])


def _transcript(value: dict[str, Any]) -> Transcript:
    """The run; if it calls no tool with a query, its code blocks of SQL are the calls."""
    transcript = transcript_of(value)
    if any(map(_query, transcript.steps)):
        return transcript
    return transcript_of(value, fences="sql")


def _query(step: Step) -> str:
    """The SELECT of a call; '' if none."""
    lists = (step.arguments.get(name) for name in (*_SQL_ARGUMENTS, "queries", "statements"))
    listed = [text for found in lists if isinstance(found, list) for text in found if isinstance(text, str)]
    query = unfenced(step.argument(*_SQL_ARGUMENTS) or next(reversed(listed), ""))
    if is_select(query):
        return query
    return next((part for part in _parts(query) if is_select(part)), "")


def _parts(command: str) -> Iterator[str]:
    """The statements of a script, the last first, and the arguments of a shell command that starts a client of SQL."""
    if _CLIENT.match(command):
        with suppress(ValueError):  # a quote is not closed
            yield from reversed(shlex.split(command))
    elif ";" in command:
        yield from (part.strip() for part in reversed(command.split(";")))


def _is_error(output: str) -> bool:
    text = output.strip()
    return _FAILED.match(text) is not None or (text.startswith("{") and bool(embedded_object(text).get("error")))


def _check_reward(rewards: list[Any]) -> None:
    last = rewards[-1] if rewards else None
    if isinstance(last, bool) or not isinstance(last, int | float):
        raise Dropped("malformed", f"the last reward must be a number, got {last!r}")
    if last != 1.0:
        raise Dropped("wrong_answer", f"the last reward is {last}, not 1.0")


def _comparable(cell: Any) -> Any:
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() else float(f"{cell:.9g}")
    return cell if isinstance(cell, int | str | None) else str(cell)
