"""Every setting of a tree of dataclasses with its type, default and meaning, and a search by words and synonyms."""

import dataclasses
import difflib
import inspect
import io
import json
import tokenize
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a recipe."""

    key: str  # such as optimizer.learning_rate
    type: str
    default: str  # as in TOML; "required" if there is none
    meaning: str  # the comment next to the field; empty if its name says it all
    section_meaning: str  # the first line of the docstring of the section's class


def describe(cls: type, prefix: str = "") -> list[Setting]:
    """List the settings of a dataclass and of the dataclasses in it; the source of each class must be readable."""
    comments, hints = _comments(cls), typing.get_type_hints(cls)
    section_meaning = (cls.__doc__ or "").strip().split("\n\n")[0]
    found = []
    for field in dataclasses.fields(cls):
        hint, key = hints[field.name], f"{prefix}{field.name}"
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            found += describe(hint, f"{key}.")
            continue
        found.append(
            Setting(
                key=key,
                type=_type_name(hint),
                default=_default(field),
                meaning=comments.get(field.name, ""),
                section_meaning=section_meaning,
            )
        )
    return found


def find(settings: list[Setting], words: str, synonyms: Mapping[str, str]) -> list[Setting]:
    """Return the settings that `words` mean: a key, a section, a synonym, a part of a key, words of a meaning."""
    words = words.strip().lower()
    plain = words.replace("_", " ").replace("-", " ").split(".")[-1]
    tests = (
        lambda one: one.key == words,
        lambda one: one.key.startswith(f"{words}."),
        lambda one: one.key in {synonyms.get(words), synonyms.get(plain)},
        lambda one: plain == one.key.split(".")[-1].replace("_", " "),
        lambda one: plain in one.key.replace("_", " "),
        lambda one: plain in one.meaning.lower(),
    )
    for test in tests:
        if found := [one for one in settings if test(one)]:
            return found
    keys = {one.key.split(".")[-1]: one for one in settings}
    return [keys[name] for name in difflib.get_close_matches(plain.replace(" ", "_"), keys, n=3, cutoff=0.6)]


def _comments(cls: type) -> dict[str, str]:
    """Return the comment of each field: at the end of its line, or in the lines directly before it."""
    lines = inspect.getsource(cls).splitlines(keepends=True)
    tokens = tokenize.generate_tokens(io.StringIO("".join(lines)).readline)
    by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    names = {field.name for field in dataclasses.fields(cls)}
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip().partition(":")[0]
        if name not in names:
            continue
        before: list[str] = []
        while lines[number - 2 - len(before)].strip().startswith("#"):
            before.insert(0, by_line[number - 1 - len(before)])
        comment = " ".join([*before, by_line.get(number, "")]).strip()
        if comment:
            found[name] = comment
    return found


def _type_name(hint: Any) -> str:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(json.dumps(option) for option in options)
    if origin is types.UnionType:
        return " | ".join("unset" if option is types.NoneType else _type_name(option) for option in options)
    if origin is list:
        return f"list of {_type_name(options[0])}"
    return {"str": "string", "int": "whole number", "float": "number", "bool": "true | false"}.get(
        getattr(hint, "__name__", str(hint)), str(hint)
    )


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    if field.default is dataclasses.MISSING:
        return "required"
    return "unset" if field.default is None else json.dumps(field.default)
