"""Tasks of benchmarks, as their runs are published: a run has only the question or the id of its task.

Known are InterCode SQL (by question), BIRD-Interact and LiveSQLBench (by `instance_id`), and BrowseComp-Plus (by
`query_id`). A file of tasks among the inputs or the resources has the rest.
"""

from typing import Any

from acc_megatron.data_tools.sources.formats.intercode import is_log_of_person
from acc_megatron.data_tools.sources.formats.known_formats import format_of
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS
from acc_megatron.data_tools.sources.formats.message_places import with_messages

RUN_KEYS = frozenset((*MESSAGE_KEYS, "turn_history", "steps", "trajectory_steps"))
_ID_KEYS = ("instance_id", "query_id")
_INTERCODE = {"query": "question", "db": "db", "gold": "gold_sql"}
_BIRD = {"query": "question", "selected_database": "db", "sol_sql": "gold_sql"}
_BROWSECOMP = {"query": "question", "answer": "answer"}


def task_of(value: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The name by which runs refer to a task, and the fields that they get; None for a row that is not a task."""
    if "result" in value or not RUN_KEYS.isdisjoint(value):
        return None
    if _has_texts(value, "query", "db", "gold"):
        return value["query"], _renamed(value, _INTERCODE)
    if _has_texts(value, "instance_id", "selected_database") and value.get("sol_sql"):
        is_run = format_of(with_messages(value)) is not None
        return None if is_run else (_name("instance_id", value["instance_id"]), _renamed(value, _BIRD))
    if _has_texts(value, "query", "answer") and isinstance(value.get("query_id"), str | int):
        return _name("query_id", value["query_id"]), _renamed(value, _BROWSECOMP)
    return None


def task_name_of_run(value: dict[str, Any]) -> str:
    """The name of the task of a run; '' if the run has a question of its own or names no task."""
    if "question" in value:
        return ""
    if "turn_history" in value or is_log_of_person(value):
        return value["query"] if isinstance(value.get("query"), str) else ""
    return next((_name(key, value[key]) for key in _ID_KEYS if isinstance(value.get(key), str | int)), "")


def _has_texts(value: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(value.get(key), str) for key in keys)


def _name(key: str, given: str | int) -> str:
    return f"{key} {given}"


def _renamed(value: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {new: value[old] for old, new in names.items() if value.get(old)}
