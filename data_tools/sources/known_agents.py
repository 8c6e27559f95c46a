"""The registry of agent kinds, and which kind made a row."""

from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.formats.known_formats import LOG_FORMATS, format_of, tool_names
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS
from acc_megatron.data_tools.sources.search.agent import SearchAgent
from acc_megatron.data_tools.sources.sql.agent import SqlAgent
from acc_megatron.data_tools.sources.swe.agent import SweAgent
from acc_megatron.errors import DataError

# the first kind that recognises a row reads it: a SQL run names its database, and only tools tell search from SWE
AGENT_KINDS: dict[str, AgentKind] = {kind.name: kind for kind in (SqlAgent(), SearchAgent(), SweAgent())}
_NAMES_SHOWN = 20
# keys of triples, of published ACC rows and of manifests
_CONVERT_KEYS = {"context", "dialogs", "ground_truth_answer", "format_version"}


def agent_of(value: dict[str, Any]) -> AgentKind | None:
    """The first agent kind that recognises a row."""
    return next((kind for kind in AGENT_KINDS.values() if kind.recognises(value)), None)


def check_agent(name: str) -> None:
    """Raise DataError unless `name` is 'auto' or an agent kind."""
    if name not in ("auto", *AGENT_KINDS):
        known = "\n".join(f"  {kind.name}: {kind.summary}" for kind in AGENT_KINDS.values())
        raise DataError(f"unknown agent {name!r}; known are auto and\n{known}")


def describe_row(value: dict[str, Any]) -> str:
    """Why no agent kind recognises a row: what it contains, what it is nearest to, and what to add to it."""
    parts = [f"keys: {_shown(value) or 'none'}"]
    for key in (*MESSAGE_KEYS, "steps"):
        found = value.get(key)
        items = objects_in(found)
        if items:
            roles = dict.fromkeys(str(item["role"]) for item in items if "role" in item)
            what = f"of roles {_shown(roles)}" if roles else f"with {_shown(items[0])}"
            parts.append(f"{len(items)} {key} {what}")
    if tools := tool_names(value):
        parts.append(f"tools: {_shown(dict.fromkeys(sorted(tools)))}")
    if not _CONVERT_KEYS.isdisjoint(value):
        parts.append("this row may be compiled already: 'acc-megatron convert' takes triples and published ACC rows")
    else:
        parts.append(_advice(value))
    return "; ".join(parts)


def _advice(value: dict[str, Any]) -> str:
    """The nearest format and agent kind of a row, and the fields that it lacks."""
    found = format_of(value)
    if found is None:
        known = ", ".join(known.name for known in LOG_FORMATS)
        return f"no known format (docs/data.md lists them: {known}); nearest: messages, or question, steps and answer"
    if found.agent == "sql":
        return (
            f"nearest: a SQL run ({found.name}); add 'question', 'db' (the name of a SQLite file in the inputs or "
            "--resources) and 'gold_sql', or give InterCode's file of tasks with --resources"
        )
    return (
        f"nearest: a run in the format {found.name}, whose tools no agent kind knows; add 'db' and 'gold_sql' to a SQL "
        "run, 'instance_id' to a SWE run, or \"task\": \"search\" and 'answer' to a search run"
    )


def _shown(names: dict[str, Any]) -> str:
    return ", ".join(repr(name)[:40] for name in list(names)[:_NAMES_SHOWN])
