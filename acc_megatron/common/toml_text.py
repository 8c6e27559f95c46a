"""Settings as TOML, for recipes that a program writes; the standard library can only read TOML."""

import dataclasses
import json
from typing import Any


def write_toml(settings: Any, *, prefix: str = "") -> str:
    """Return a settings dataclass as TOML: values first, then a section for each dataclass.

    Left out are values that equal their defaults, and sections without any other value.
    """
    values, sections = [], []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == _default(field):
            continue
        if dataclasses.is_dataclass(value):
            sections.append(write_toml(value, prefix=f"{prefix}{field.name}."))
        else:
            # strings, numbers, booleans and lists of them have the same form in JSON
            values.append(f"{field.name} = {json.dumps(value)}")
    if prefix and (values or not sections):
        values = [f"[{prefix.removesuffix('.')}]", *values]
    return "\n\n".join(part for part in ("\n".join(values), *sections) if part)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
