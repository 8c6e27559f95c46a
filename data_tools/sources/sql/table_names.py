"""The tables that a SELECT names, read from its tokens; agents write MySQL, which need not run here.

sqlglot is not used: it rejects 6 of the 471 SELECTs of real runs, whose tables are clear from their tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# possessive quantifiers: an unclosed quote or comment runs to the end once, so hostile text costs linear time
_TOKEN = re.compile(
    r"""--[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?    # comments
      |'(?:[^'\\]|\\.|'')*+'?                            # string literals
      |"(?:[^"]|"")*+"?|`(?:[^`]|``)*+`?|\[[^\]]*+\]?    # quoted names
      |[^\W\d][\w$]*|\d[\w.]*|\S                         # words, numbers, punctuation""",
    re.VERBOSE | re.DOTALL,
)
_CLAUSES = {"WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT", "WINDOW", "SELECT"}
_CATALOGUES = {"information_schema", "performance_schema", "mysql", "sys"}


@dataclass(slots=True)
class _Frame:
    """One level of parentheses: whether it has a SELECT, is in its FROM clause, and expects a table name."""

    has_select: bool = False
    in_from: bool = False
    expects_name: bool = False


def is_select(sql: str) -> bool:
    """Whether the statement reads tables: SELECT or WITH, not SHOW, DESCRIBE or a change."""
    words = [token for token in _tokens(sql) if token != "("]
    return bool(words) and words[0].upper() in ("SELECT", "WITH")


def table_names(sql: str) -> list[str]:
    """The names after FROM and JOIN in lower case, in their order and each once; for `db.table` the table.

    Common table expressions, table functions and the server's own catalogues are left out.
    """
    tokens = _tokens(sql)
    own = _common_table_names(tokens)
    return [name for name in dict.fromkeys(_named(tokens)) if name not in own and not name.startswith("sqlite_")]


def words_of(sql: str) -> set[str]:
    """The words and names of a query in lower case, without quotes."""
    return {token.strip('"`[]').lower() for token in _tokens(sql)}


def has_order_by(sql: str) -> bool:
    """Whether the query orders its result; an ORDER BY inside parentheses orders something else."""
    depth, outer = 0, []
    for token in _tokens(sql):
        depth = max(0, depth + {"(": 1, ")": -1}.get(token, 0))
        outer += [token.upper()] if not depth else []
    return any(pair == ("ORDER", "BY") for pair in pairwise(outer))


def _named(tokens: list[str]) -> Iterator[str]:
    frames, i = [_Frame()], 0
    while i < len(tokens):
        token, frame = tokens[i], frames[-1]
        word = token.upper()
        if token == "(":
            frames.append(_Frame(in_from=frame.expects_name, expects_name=frame.expects_name))
            frame.expects_name = False
        elif token == ")":
            del frames[max(len(frames) - 1, 1) :]
        elif word in _CLAUSES:
            frame.has_select |= word == "SELECT"
            frame.in_from = frame.expects_name = False
        elif word == "FROM" and frame.has_select and tokens[i - 1].upper() != "DISTINCT":
            frame.in_from = frame.expects_name = True
        elif (word in ("JOIN", "STRAIGHT_JOIN") or token == ",") and frame.in_from:
            frame.expects_name = True
        elif frame.expects_name and word != "LATERAL":
            parts, i = _dotted(tokens, i)
            frame.expects_name = False
            if tokens[i + 1 : i + 2] != ["("] and not (len(parts) > 1 and parts[-2] in _CATALOGUES):
                yield parts[-1]
        i += 1


def _dotted(tokens: list[str], i: int) -> tuple[list[str], int]:
    """The parts of the name `a.b.c` at token i, and the index of its last token."""
    parts = [_unquoted(tokens[i])]
    while tokens[i + 1 : i + 2] == ["."] and i + 2 < len(tokens):
        i += 2
        parts.append(_unquoted(tokens[i]))
    return parts, i


def _common_table_names(tokens: list[str]) -> set[str]:
    """The name of every `name AS (` and `name (columns) AS (` in a statement that begins with WITH."""
    if not tokens or tokens[0].upper() != "WITH":
        return set()
    names = set()
    for i in range(1, len(tokens) - 1):
        if tokens[i].upper() == "AS" and tokens[i + 1].upper() in ("(", "MATERIALIZED", "NOT"):
            before = i - 1
            if tokens[before] == ")":
                while before > 0 and tokens[before] != "(":
                    before -= 1
                before -= 1
            names.add(_unquoted(tokens[max(before, 0)]))
    return names


def _tokens(sql: str) -> list[str]:
    return [token for token in _TOKEN.findall(sql) if not token.startswith(("--", "#", "/*"))]


def _unquoted(token: str) -> str:
    quote = token[:1]
    if quote == "[":
        return token.strip("[]").lower()
    name = token[1:-1].replace(quote * 2, quote) if quote in ("`", '"') and len(token) > 1 else token
    return name.lower()
