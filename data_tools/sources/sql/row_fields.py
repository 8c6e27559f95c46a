"""The fields of SQL rows under the names that benchmarks use: database, question with its hint, and gold query.

Known are Spider and InterCode (`db`, `query`, `gold`), BIRD (`db_id`, `evidence`, `SQL`), Spider 2 (`instruction`), and
BIRD-Interact and LiveSQLBench (`selected_database`, `amb_user_query`, `sol_sql`).
"""

import re
from typing import Any

from acc_megatron.data_tools.rows.fields import fenced_blocks, optional_object, plain_name
from acc_megatron.data_tools.sources.sql.table_names import is_select
from acc_megatron.errors import Dropped

DATABASE_KEYS = (
    "db", "db_id", "database", "db_name", "selected_database", "database_name", "database_id", "dbId", "databaseId",
)  # fmt: skip
GOLD_KEYS = (
    "gold_sql", "gold_query", "sol_sql", "SQL", "sql", "gold", "ground_truth_sql", "golden_sql", "sql_query", "query",
    "golden_query", "groundtruth_sql", "reference_sql", "target_sql", "expected_sql", "correct_sql", "answer_sql",
    "goldSQL", "ground_truth", "label",
)  # fmt: skip
_GOLD_WORDS = {
    "gold",
    "golden",
    "truth",
    "reference",
    "ref",
    "target",
    "expected",
    "correct",
    "true",
    "sol",
    "solution",
}
_SQL_WORDS = {"sql", "sqls", "query", "queries"}
_TRUTH_KEYS = ("answer", "target", "solution", "reference", "output")  # if they contain a query
_SQL_KEYS = (*GOLD_KEYS, "target", "value", "text")
_OTHER_USES = ("query", "ground_truth", "label")  # keys that can contain something else
# `query` is the clear question of LiveSQLBench and the SQL of Spider
_QUESTION_KEYS = ("question", "query", "instruction", "user_query", "amb_user_query", "utterance", "Task")
_PLACES = ("metadata", "meta", "extra_info", "original_data")
_GOLD_PLACES = (*_PLACES, "reward_model", "reward_spec")  # verl, SkyRL
_PATH_KEYS = ("db_path", "database_path", "db_file", "sqlite_path", "database_file", "sqlite_file")
_PATH_END = re.compile(r"(?:.*[/\\])?([^/\\]+?)(?:\.(?:sqlite3?|db))?", re.DOTALL)
_HINT_KEYS = ("evidence", "hint", "hints", "external_knowledge", "knowledge", "knowledge_evidence", "oracle_knowledge")


def database_of(value: dict[str, Any]) -> str:
    """The name of the row's database, or the name in its path; '' if none."""
    places = (value, *(optional_object(value, place) for place in _PLACES))
    for place in places:
        if name := _first(place, DATABASE_KEYS):
            return name
        if (path := _first(place, _PATH_KEYS)) and (match := _PATH_END.fullmatch(path)):
            return match[1]
    plain = {plain_name(key): found for key, found in value.items()}
    return database_of(plain) if not plain.keys() <= value.keys() else ""


def question_of(value: dict[str, Any]) -> str:
    """The row's question without its hint; '' if the row has none of the keys."""
    texts = (value[key] for key in _QUESTION_KEYS if isinstance(value.get(key), str))
    return next((text.strip() for text in texts if text.strip() and not is_select(text)), "")


def with_hint(question: str, value: dict[str, Any]) -> str:
    """The question, followed by the row's hint (BIRD's `evidence`) unless the question contains it."""
    known = " ".join(question.split()).lower()
    hints = [hint for hint in _hints(value) if " ".join(hint.split()).lower() not in known]
    return "\n\nHint: ".join([question.strip(), "\n".join(hints)]) if hints else question.strip()


def gold_query_of(value: dict[str, Any]) -> str:
    """The gold query: a text, or the last SELECT of a list or object. Raises Dropped('malformed') without one."""
    for place in (value, *(optional_object(value, place) for place in _GOLD_PLACES)):
        for key in GOLD_KEYS:
            texts = _queries(place.get(key))
            queries = [text for text in texts if is_select(text)] or [text for text in texts if text.strip()]
            if queries and (key not in _OTHER_USES or is_select(queries[-1])):
                return queries[-1]
    for key, found in value.items():
        words = set(plain_name(key).split("_"))
        is_gold = bool(words & _GOLD_WORDS) and bool(words & _SQL_WORDS)
        texts = [text for text in _queries(found) if is_select(text)] if is_gold or key in _TRUTH_KEYS else []
        if texts:
            return texts[-1]
    found = value.get(GOLD_KEYS[0])
    got = type(found).__name__ if GOLD_KEYS[0] in value else "nothing"
    raise Dropped("malformed", f"no gold query: {GOLD_KEYS[0]!r} must be a string, got {got}")


def unfenced(text: str) -> str:
    """A query without the code fence around it."""
    blocks = fenced_blocks(text) if text.lstrip().startswith("```") else []
    return (blocks[0] if blocks else text).strip()


def _queries(found: object) -> list[str]:
    """The texts of a query that is a text, a list of them, or an object with one."""
    if isinstance(found, dict):
        found = [text for key in _SQL_KEYS for text in _as_list(found.get(key))]
    return [unfenced(text) if "```" in text else text for text in _as_list(found) if isinstance(text, str)]


def _hints(value: dict[str, Any]) -> list[str]:
    """The texts of all hints; a single word is the name of a file (Spider 2), and numbers are ids (LiveSQLBench)."""
    places = (value, *(optional_object(value, place) for place in _PLACES))
    found = [item for place in places for key in (*_HINT_KEYS, "Evidence") for item in _as_list(place.get(key))]
    texts = (item.strip() for item in found if isinstance(item, str))
    return list(dict.fromkeys(text for text in texts if len(text.split()) > 1))


def _as_list(found: object) -> list[object]:
    return found if isinstance(found, list) else [found]


def _first(value: dict[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys if value else ():
        if key in value and isinstance(text := value[key], str) and text.strip():
            return text
    return ""
