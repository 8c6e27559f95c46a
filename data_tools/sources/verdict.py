"""The verdict on a run in its own row: under keys of the row, and of the objects in which harnesses put their results.

`score` counts only in the row itself, because inside of other objects it also names other qualities of a row.
"""

import math
from collections.abc import Iterator
from typing import Any

_INNER_KEYS = (
    "success", "succeeded", "is_success", "correct", "is_correct", "resolved", "is_resolved", "solved", "is_solved",
    "passed", "is_passed", "pass", "reward",
)  # fmt: skip
_NUMBER_KEYS = ("reward", "rewards", "score", "final_reward", "final_score")
_WORD_KEYS = ("status", "outcome", "verdict", "judgement", "judgment", "result", "eval_result", "evaluation")
_KEYS = (*_INNER_KEYS, "rewards", "score", "final_reward", "final_score", *_WORD_KEYS)
_PLACES = (
    "info", "metadata", "meta", "extra_info", "report", "test_result", "eval", "evaluation", "eval_result",
    "eval_results", "evaluation_result", "result", "results", "metrics", "judge", "instance_report",
)  # fmt: skip
_RIGHT = (
    "true",
    "yes",
    "resolved",
    "solved",
    "passed",
    "pass",
    "success",
    "successful",
    "succeeded",
    "correct",
    "right",
)
_WRONG = ("false", "no", "unresolved", "failed", "fail", "failure", "incorrect", "wrong", "unsuccessful")
_WORDS = dict.fromkeys(_RIGHT, 1) | dict.fromkeys((*_WRONG, *(f"not {word}" for word in _RIGHT)), 0)
_MAX_DEPTH = 2  # test_result -> report


def says_failed(value: dict[str, Any]) -> bool:
    """Whether any verdict of the row is false or a number below 1."""
    return any(verdict < 1 for verdict in row_verdicts(value))


def says_succeeded(value: dict[str, Any]) -> bool:
    """Whether the row has a verdict and none says that the run failed."""
    return bool(row_verdicts(value)) and not says_failed(value)


def row_verdicts(value: dict[str, Any]) -> list[float]:
    """Every verdict of the row, and of the objects with results inside of it."""
    inner = (found for place in _objects(value, _MAX_DEPTH) for found in verdicts_of(place, _INNER_KEYS))
    return [*verdicts_of(value), *inner]


def verdicts_of(value: dict[str, Any], keys: tuple[str, ...] = _KEYS) -> list[float]:
    """Every verdict under the keys; 'False' and words like it count as 0 or 1, and `resolved: -1` means not judged."""
    found = []
    for key in keys:
        stated = value.get(key)
        stated = stated[-1] if key == "rewards" and isinstance(stated, list) and stated else stated
        verdict = _number(stated, is_number_key=key in _NUMBER_KEYS, is_word_key=key in _WORD_KEYS)
        if verdict is not None and (key not in ("resolved", "is_resolved") or verdict in (0, 1)):
            found.append(verdict)
    return found


def _objects(value: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    for key in _PLACES if depth else ():
        if isinstance(found := value.get(key), dict):
            yield found
            if key == "report" and len(found) == 1 and isinstance(only := next(iter(found.values())), dict):
                yield only  # SWE-bench's report is keyed by the instance id
            yield from _objects(found, depth - 1)


def _number(verdict: Any, *, is_number_key: bool, is_word_key: bool) -> float | None:
    """A verdict as a number; None for a value that is none."""
    if isinstance(verdict, str):
        word = verdict.strip().lower()
        if word in _WORDS or is_word_key:
            return _WORDS.get(word)
        try:
            number = float(word)
        except ValueError:
            return None
        return number if math.isfinite(number) and (is_number_key or number in (0, 1)) else None
    if is_word_key and not isinstance(verdict, bool):
        return None
    return verdict if isinstance(verdict, bool | int | float) else None
