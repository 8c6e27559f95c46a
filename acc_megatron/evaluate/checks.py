"""Checks of single settings, with errors that name the setting."""

from collections.abc import Sequence

from acc_megatron.errors import ConfigError


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Raise ConfigError if `value` is below `minimum`."""
    if value < minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}")
