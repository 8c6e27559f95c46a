"""A table of named implementations of one extension point, such as the optimizers that `optimizer.kind` can name."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from acc_megatron.errors import ConfigError

T = TypeVar("T")
SHORT_NAMES = {"bf16": "bfloat16", "fp32": "float32", "f32": "float32"}


class Registry(dict[str, T]):
    """Implementations by name; a lookup of an unknown name raises ConfigError with the setting and the known names."""

    def __init__(self, setting: str, entries: Mapping[str, T]) -> None:
        super().__init__(entries)
        self.setting = setting

    def __missing__(self, name: object) -> T:
        raise ConfigError(
            f"{self.setting} must be one of {', '.join(map(repr, self))}, got {name!r}{similar(name, self)}"
        )


def similar(value: object, known: Iterable[str]) -> str:
    """The end of an error: the known value that a wrong one resembles, if there is one."""
    names = [name for name in known if isinstance(name, str)]
    near = difflib.get_close_matches(SHORT_NAMES.get(str(value), str(value)), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
