"""Which kind of agent made a row, or what was seen in a row that none of the readers knows."""

from types import ModuleType
from typing import Any

from acc_megatron.data_tools.sources import search, sql, swe
from acc_megatron.data_tools.sources.messages import MESSAGE_KEYS
from acc_megatron.data_tools.sources.transcript import tool_names

# in this order: a SQL run names its database, and a search run is told from a SWE run by its tools
SOURCES: dict[str, ModuleType] = {"sql": sql, "search": search, "swe": swe}
_NAMES_SHOWN = 20
_OF_CONVERT = {"context", "dialogs", "ground_truth_answer", "format_version"}  # of triples, published rows, manifests


def agent_of(value: dict[str, Any]) -> str | None:
    """The name of the first source that recognises a row."""
    return next((name for name, source in SOURCES.items() if source.recognises(value)), None)


def described(value: dict[str, Any]) -> str:
    """The keys of a row, and the roles, keys and tools of what it lists, for someone who asks why it was not known."""
    parts = [f"keys seen: {_shown(value) or 'none'}"]
    for key in (*MESSAGE_KEYS, "steps"):
        found = value.get(key)
        items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        if items:
            roles = dict.fromkeys(str(item["role"]) for item in items if "role" in item)
            what = f"of roles {_shown(roles)}" if roles else f"with {_shown(items[0])}"
            parts.append(f"{len(items)} {key} {what}")
    if tools := tool_names(value):
        parts.append(f"tools: {_shown(dict.fromkeys(sorted(tools)))}")
    if not _OF_CONVERT.isdisjoint(value):
        parts.append("is it compiled already? 'convert' takes triples, published rows and the folders they are in")
    return "; ".join(parts)


def _shown(names: dict[str, Any]) -> str:
    return ", ".join(repr(name)[:40] for name in list(names)[:_NAMES_SHOWN])
