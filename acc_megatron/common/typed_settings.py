"""TOML files and `section.key=value` overrides converted to typed dataclasses, with an error for each wrong key."""

import dataclasses
import datetime
import difflib
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from acc_megatron.common.registry import similar
from acc_megatron.errors import ConfigError

T = TypeVar("T")


class UnknownKey(ConfigError):
    """A key that no setting has; `suggestion` is a similar key of the same section, if there is one."""

    def __init__(self, where: str, key: str, suggestion: str | None, known: Sequence[str]) -> None:
        self.key, self.suggestion = key, suggestion
        hint = f"did you mean {suggestion}?" if suggestion else f"known keys: {', '.join(known)}"
        super().__init__(f"{where}: unknown key {key}; {hint}")


def read_tree(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return a TOML file as nested dicts, with `section.key=value` overrides applied; raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"no config file at {path}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    for override in overrides:
        apply_override(tree, override)
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in nested dicts; raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} has no '=': write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    if isinstance(value, datetime.date | datetime.time):
        value = text  # no setting is a date; a batch system writes eight hours as 08:00:00
    *sections, last = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {section!r} is a value, not a section")
    tree[last] = value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one dict with `section.key` names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def from_dict(cls: type[T], tree: dict[str, Any], where: str, prefix: str = "") -> T:
    """Build a settings dataclass from nested dicts; an unknown, missing or mistyped key raises ConfigError.

    `where` names the file in errors, `prefix` is the section of the keys, such as `train.`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            raise UnknownKey(where, prefix + key, f"{prefix}{near[0]}" if near else None, list(fields))
    values = {}
    for name, f in fields.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], where, prefix + name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: {prefix}{name} is missing")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} must be a section, got {value!r}")
        return from_dict(hint, value, where, f"{key}.")
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and value is not None and dataclasses.is_dataclass(options[0]):
        return _convert(options[0], value, where, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} must be a section, got {value!r}")
        return {name: _convert(options[1], item, where, f"{key}.{name}") for name, item in value.items()}
    if origin is Literal:
        if value not in options:
            raise ConfigError(
                f"{where}: {key} must be one of {', '.join(map(repr, options))}, got {value!r}{similar(value, options)}"
            )
        return value
    if origin is list:
        if not isinstance(value, list) or any(type(item) is not options[0] for item in value):
            raise ConfigError(f"{where}: {key} must be a list of {options[0].__name__}, got {value!r}")
        return value
    allowed = options if origin in (typing.Union, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed and not (value is None and types.NoneType in allowed):
        names = " or ".join(t.__name__ for t in allowed if t is not types.NoneType)
        raise ConfigError(f"{where}: {key} must be {names}, got {value!r}")
    return value
