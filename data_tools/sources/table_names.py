"""The tables a SELECT names, read off its tokens: the agents' SQL is MySQL and need not run here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# possessive quantifiers: what is not closed runs to the end once, so hostile text costs linear time
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
    """One level of parentheses: whether it holds a SELECT, is in its FROM clause, and awaits a table name."""

    has_select: bool = False
    in_from: bool = False
    awaits_name: bool = False


def is_select(sql: str) -> bool:
    """Whether the statement reads tables: SELECT or WITH, not SHOW, DESCRIBE or a change."""
    words = [token for token in _tokens(sql) if token != "("]
    return bool(words) and words[0].upper() in ("SELECT", "WITH")


def table_names(sql: str) -> list[str]:
    """Names behind FROM and JOIN, lower-cased, in the order met and once each.

    Common table expressions, table functions and the server's own catalogues are no tables; of `db.table`
    the table is given.
    """
    tokens = _tokens(sql)
    own = _common_table_names(tokens)
    return [name for name in dict.fromkeys(_named(tokens)) if name not in own and not name.startswith("sqlite_")]


def has_order_by(sql: str) -> bool:
    """Whether the order of the result's rows is part of it: an ORDER BY inside parentheses orders something else."""
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
            frames.append(_Frame(in_from=frame.awaits_name, awaits_name=frame.awaits_name))
            frame.awaits_name = False
        elif token == ")":
            del frames[max(len(frames) - 1, 1) :]
        elif word in _CLAUSES:
            frame.has_select |= word == "SELECT"
            frame.in_from = frame.awaits_name = False
        elif word == "FROM" and frame.has_select and tokens[i - 1].upper() != "DISTINCT":
            frame.in_from = frame.awaits_name = True
        elif (word in ("JOIN", "STRAIGHT_JOIN") or token == ",") and frame.in_from:
            frame.awaits_name = True
        elif frame.awaits_name and word != "LATERAL":
            parts, i = _dotted(tokens, i)
            frame.awaits_name = False
            if tokens[i + 1 : i + 2] != ["("] and not (len(parts) > 1 and parts[-2] in _CATALOGUES):
                yield parts[-1]
        i += 1


def _dotted(tokens: list[str], i: int) -> tuple[list[str], int]:
    """The parts of `a.b.c` that starts at i, and the index of its last token."""
    parts = [_unquoted(tokens[i])]
    while tokens[i + 1 : i + 2] == ["."] and i + 2 < len(tokens):
        i += 2
        parts.append(_unquoted(tokens[i]))
    return parts, i


def _common_table_names(tokens: list[str]) -> set[str]:
    """`name` of every `name AS (` and `name (columns) AS (` in a statement that opens with WITH."""
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
