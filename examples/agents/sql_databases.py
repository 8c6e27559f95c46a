"""SQLite databases with several related tables each, made from data of the standard library."""

import errno
import html.entities
import http
import inspect
import mimetypes
import random
import signal
import sqlite3
import unicodedata
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common import import_library

Row = tuple[object, ...]

CATEGORIES = {
    "Lu": "uppercase letter", "Ll": "lowercase letter", "Lt": "titlecase letter", "Lm": "modifier letter",
    "Lo": "other letter", "Mn": "nonspacing mark", "Mc": "spacing mark", "Me": "enclosing mark",
    "Nd": "decimal number", "Nl": "letter number", "No": "other number", "Pc": "connector punctuation",
    "Pd": "dash punctuation", "Ps": "open punctuation", "Pe": "close punctuation", "Pi": "initial punctuation",
    "Pf": "final punctuation", "Po": "other punctuation", "Sm": "math symbol", "Sc": "currency symbol",
    "Sk": "modifier symbol", "So": "other symbol", "Zs": "space separator", "Cf": "format", "Cc": "control",
}  # fmt: skip
MAJOR_CLASSES = {
    "L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol", "Z": "separator", "C": "other",
}  # fmt: skip
WIDTHS = {"N": "neutral", "Na": "narrow", "W": "wide", "F": "fullwidth", "H": "halfwidth", "A": "ambiguous"}
REGIONS = ("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")
STATUS_CLASSES = ("informational", "successful", "redirection", "client error", "server error")


@dataclass(frozen=True, slots=True)
class Table:
    """A table to create; each column is an SQL definition that starts with its name."""

    name: str
    columns: tuple[str, ...]
    rows: list[Row]

    def create(self, connection: sqlite3.Connection) -> None:
        """Create and fill the table."""
        marks = ", ".join("?" * len(self.columns))
        connection.execute(f"CREATE TABLE {self.name} ({', '.join(self.columns)})")
        connection.executemany(f"INSERT INTO {self.name} VALUES ({marks})", self.rows)


def row_tokens(row: Row) -> int:
    """Estimate the tokens of a row written with ' | ' between its cells.

    Different from prose: one token per digit and per separator, and two tokens per five other characters.
    """
    size = 0
    for cell in row:
        text = str(cell)
        num_digits = sum(map(str.isdigit, text))
        size += 1 + num_digits + (2 * (len(text) - num_digits) + 4) // 5
    return size


def fill(rows: Iterator[Row], budget_tokens: float) -> list[Row]:
    """Take rows until they fill the budget, but at least 12 rows."""
    taken: list[Row] = []
    used = 0
    for row in rows:
        if used >= budget_tokens and len(taken) >= 12:
            break
        taken.append(row)
        used += row_tokens(row)
    return taken


def has_name(char: str) -> bool:
    """Whether the character has a Unicode name; controls and unassigned code points have none."""
    return unicodedata.name(char, None) is not None


def unicode_characters(rng: random.Random) -> Iterator[int]:
    """Named code points, in blocks of 32 in random order."""
    blocks = list(range(0x20, 0x1F900, 32))
    rng.shuffle(blocks)
    for start in blocks:
        for point in range(start, start + 32):
            if has_name(chr(point)) and unicodedata.category(chr(point)) in CATEGORIES:
                yield point


def category_table() -> Table:
    """The general categories of Unicode."""
    rows: list[Row] = [(code, meaning, MAJOR_CLASSES[code[0]]) for code, meaning in CATEGORIES.items()]
    return Table("general_category", ("code TEXT PRIMARY KEY", "meaning TEXT", "major_class TEXT"), rows)


def unicode_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """Characters, their general categories and their East Asian widths."""

    def rows() -> Iterator[Row]:
        for point in unicode_characters(rng):
            char = chr(point)
            name = unicodedata.name(char)
            category, width = unicodedata.category(char), unicodedata.east_asian_width(char)
            yield point, name, name.split()[0], category, width, unicodedata.combining(char)

    columns = (
        "codepoint INTEGER PRIMARY KEY", "name TEXT", "first_word TEXT",
        "category_code TEXT REFERENCES general_category(code)", "width_code TEXT REFERENCES width(code)",
        "combining INTEGER",
    )  # fmt: skip
    widths = Table("width", ("code TEXT PRIMARY KEY", "meaning TEXT"), list(WIDTHS.items()))
    return [category_table(), widths, Table("character", columns, sorted(fill(rows(), budget_tokens - 300)))]


def markup_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """Named characters of HTML, their code points, and the categories of these."""
    names: dict[int, list[str]] = {}
    for name, text in html.entities.html5.items():
        if len(text) == 1 and name.endswith(";") and has_name(text):
            names.setdefault(ord(text), []).append(name.removesuffix(";"))
    points = sorted(names)
    rng.shuffle(points)
    pairs = ((point, name) for point in points for name in names[point])
    entities = fill(((name, point) for point, name in pairs), budget_tokens * 0.35)
    shown = sorted({int(str(point)) for _, point in entities})
    characters: list[Row] = [(p, unicodedata.name(chr(p)), unicodedata.category(chr(p))) for p in shown]
    return [
        category_table(),
        Table("entity", ("name TEXT PRIMARY KEY", "codepoint INTEGER REFERENCES character(codepoint)"), entities),
        Table(
            "character",
            ("codepoint INTEGER PRIMARY KEY", "name TEXT", "category_code TEXT REFERENCES general_category(code)"),
            characters,
        ),
    ]


def zone_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """Time zones, their regions and their offsets at noon UTC on the 15th of each month."""
    names = [name for name in sorted(zoneinfo.available_timezones()) if name.split("/")[0] in REGIONS]
    rng.shuffle(names)
    years = range(2024 - budget_tokens // 70_000, 2025)
    zones: list[Row] = []
    offsets: list[Row] = []
    used = 0
    for name in names:
        region, _, city = name.partition("/")
        zones.append((len(zones) + 1, REGIONS.index(region) + 1, city))
        for year in years:
            for month in range(1, 13):
                when = datetime(year, month, 15, 12, tzinfo=UTC).astimezone(zoneinfo.ZoneInfo(name))
                delta, saving = when.utcoffset(), when.dst()
                assert delta is not None and saving is not None
                row = (len(zones), year, month, int(delta.total_seconds()) // 60, int(bool(saving)))
                offsets.append(row)
                used += row_tokens(row) + row_tokens(zones[-1]) // 12
        if used >= budget_tokens and len(zones) >= 12:
            break
    return [
        Table("region", ("id INTEGER PRIMARY KEY", "name TEXT"), list(enumerate(REGIONS, 1))),
        Table("zone", ("id INTEGER PRIMARY KEY", "region_id INTEGER REFERENCES region(id)", "city TEXT"), zones),
        Table(
            "month_offset",
            ("zone_id INTEGER REFERENCES zone(id)", "year INTEGER", "month INTEGER", "utc_minutes INTEGER",
             "summer_time INTEGER"),
            offsets,
        ),
    ]  # fmt: skip


def num_parameters(function: Callable[..., object]) -> int | None:
    """The number of parameters of a function, or None if Python cannot determine it."""
    try:
        return len(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def library_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """Modules of the standard library, their classes with base classes, and the functions of both."""
    modules = list(import_library().items())
    rng.shuffle(modules)
    module_rows: list[Row] = []
    classes: list[type] = []
    functions: list[Row] = []
    class_modules: list[int] = []
    used = 0
    for name, module in modules:
        if used >= budget_tokens and len(module_rows) >= 6:
            break
        summary = (inspect.getdoc(module) or "").split("\n")[0][:80]
        module_rows.append((len(module_rows) + 1, name, summary))
        used += row_tokens(module_rows[-1])
        for key, member in sorted(vars(module).items()):
            if key.startswith("_") or getattr(member, "__module__", None) != name:
                continue
            owner = None
            methods = {key: member}
            if inspect.isclass(member) and member.__name__ == key:
                classes.append(member)
                class_modules.append(len(module_rows))
                owner, methods = len(classes), dict(vars(member))
                used += 7
            for method, function in sorted(methods.items()):
                count = num_parameters(function) if inspect.isfunction(function) else None
                if count is not None and not method.startswith("_"):
                    functions.append((len(functions) + 1, len(module_rows), owner, method, count))
                    used += row_tokens(functions[-1])
    ids = {cls: number for number, cls in enumerate(classes, 1)}
    rows = zip(ids.values(), class_modules, classes, strict=True)
    class_rows: list[Row] = [
        (number, module, cls.__name__, ids.get(cls.__base__ or object)) for number, module, cls in rows
    ]
    return [
        Table("module", ("id INTEGER PRIMARY KEY", "name TEXT", "summary TEXT"), module_rows),
        Table(
            "class",
            ("id INTEGER PRIMARY KEY", "module_id INTEGER REFERENCES module(id)", "name TEXT",
             "base_id INTEGER REFERENCES class(id)"),
            class_rows,
        ),
        Table(
            "function",
            ("id INTEGER PRIMARY KEY", "module_id INTEGER REFERENCES module(id)",
             "class_id INTEGER REFERENCES class(id)", "name TEXT", "num_parameters INTEGER"),
            functions,
        ),
    ]  # fmt: skip


def builtin_exceptions(root: type[BaseException] = BaseException) -> Iterator[type[BaseException]]:
    """The built-in exception classes, a parent before its children."""
    yield root
    for child in sorted(root.__subclasses__(), key=lambda cls: cls.__name__):
        if child.__module__ == "builtins":
            yield from builtin_exceptions(child)


def system_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """Error numbers, the tree of exceptions that Python raises for them, and signals."""
    exceptions = list(dict.fromkeys(builtin_exceptions()))
    ids = {cls: number for number, cls in enumerate(exceptions, 1)}
    numbers = sorted(errno.errorcode)
    num_rows = min(len(numbers), max(40, budget_tokens // 12))
    chosen = sorted(rng.sample(numbers, num_rows))
    errors: list[Row] = [(n, errno.errorcode[n], ids[type(OSError(n, ""))]) for n in chosen]
    signals: list[Row] = [(int(s), s.name, signal.strsignal(s)) for s in sorted(signal.valid_signals())
                          if isinstance(s, signal.Signals)]  # fmt: skip
    tree: list[Row] = [
        (number, cls.__name__, ids.get(cls.__base__ or object), (cls.__doc__ or "").split("\n")[0])
        for cls, number in ids.items()
    ]
    return [
        Table(
            "exception",
            ("id INTEGER PRIMARY KEY", "name TEXT", "parent_id INTEGER REFERENCES exception(id)", "summary TEXT"),
            tree,
        ),
        Table(
            "error_number",
            ("number INTEGER PRIMARY KEY", "symbol TEXT", "exception_id INTEGER REFERENCES exception(id)"),
            errors,
        ),
        Table("signal", ("number INTEGER PRIMARY KEY", "name TEXT", "description TEXT"), signals),
    ]


def web_tables(rng: random.Random, budget_tokens: int) -> list[Table]:
    """HTTP status codes and their classes; file name suffixes, media types and their main types."""
    statuses: list[Row] = [(s.value, s.phrase, s.value // 100, s.description) for s in sorted(http.HTTPStatus)]
    suffixes = sorted(mimetypes.MimeTypes().types_map[True].items())
    mains = sorted({kind.partition("/")[0] for _, kind in suffixes})
    rng.shuffle(suffixes)
    types: list[Row] = [(suffix, mains.index(kind.partition("/")[0]) + 1, kind) for suffix, kind in suffixes]
    return [
        Table("status_class", ("id INTEGER PRIMARY KEY", "meaning TEXT"), list(enumerate(STATUS_CLASSES, 1))),
        Table(
            "http_status",
            ("code INTEGER PRIMARY KEY", "phrase TEXT", "class_id INTEGER REFERENCES status_class(id)",
             "description TEXT"),
            statuses,
        ),
        Table("main_type", ("id INTEGER PRIMARY KEY", "name TEXT"), list(enumerate(mains, 1))),
        Table(
            "media_type",
            ("suffix TEXT PRIMARY KEY", "main_type_id INTEGER REFERENCES main_type(id)", "name TEXT"),
            sorted(fill(iter(types), budget_tokens - 1200)),
        ),
    ]  # fmt: skip


Builder = Callable[[random.Random, int], list[Table]]
# theme: its builder, and the largest context in tokens that its rows can fill
THEMES: dict[str, tuple[Builder, int]] = {
    "unicode": (unicode_tables, 1_000_000),
    "time_zones": (zone_tables, 1_000_000),
    "library": (library_tables, 80_000),
    "system": (system_tables, 3_500),
    "markup": (markup_tables, 45_000),
    "web": (web_tables, 3_700),
}


def themes_for(budget_tokens: int) -> list[str]:
    """The themes that can fill about two thirds of the budget; time zones only if Python finds their data."""
    themes = [name for name, (_, largest_tokens) in THEMES.items() if budget_tokens <= 1.5 * largest_tokens]
    return [name for name in themes if name != "time_zones" or zoneinfo.available_timezones()]


def build_database(path: Path, tables: list[Table]) -> None:
    """Write the tables into a new SQLite file."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            for table in tables:
                table.create(connection)
    finally:
        connection.close()
