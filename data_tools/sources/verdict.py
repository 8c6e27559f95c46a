"""What a row itself says about whether its run succeeded."""

from typing import Any

_KEYS = ("success", "correct", "is_correct", "resolved", "reward", "score")


def says_failed(value: dict[str, Any]) -> bool:
    """Whether any verdict in the row is a no: false, or a number below 1."""
    return any(verdict < 1 for verdict in _verdicts(value))


def says_succeeded(value: dict[str, Any]) -> bool:
    """Whether the row holds a verdict and none is a no."""
    return bool(_verdicts(value)) and not says_failed(value)


def _verdicts(value: dict[str, Any]) -> list[float]:
    return [value[key] for key in _KEYS if isinstance(value.get(key), bool | int | float)]
