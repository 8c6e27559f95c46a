"""The verdict on a run in its own row: under keys of the row, and of the objects in which harnesses put their results.

A key is a verdict by its words: `resolved`, `is_correct`, `testsPassed`, `eval_status`. `score` counts only in the row
itself, because inside of other objects it also names other qualities of a row.
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, get_args

from acc_megatron.data_tools.rows.fields import embedded_object, optional_object

_FLAG_WORDS = {
    "success", "succeeded", "successful", "successfully", "succeed", "correct", "correctness", "resolved", "solved",
    "passed", "pass", "passes",
}  # fmt: skip
_STATUS_WORDS = {
    "status", "outcome", "verdict", "judgement", "judgment", "result", "evaluation", "grade", "judge", "resolution",
}  # fmt: skip
_FAILURE_WORDS = {"failed", "unresolved", "unsolved", "incorrect", "unsuccessful"}
_OTHER_WORDS = {
    "is", "was", "has", "did", "all", "completed", "test", "tests", "answer", "label", "final", "eval", "llm",
    "auto", "swe", "bench", "swebench", "exec", "execution", "run", "task", "instance", "prediction", "agent",
    "overall", "phase1",
}  # fmt: skip
_TESTS = {"test", "tests"}
_RATE_KEYS = ("pass@1", "pass_at_1")
_RATES = {"acc", "accuracy", "rate", "ex"}  # over several runs: only none and all are verdicts on one of them
_REWARDS = ("reward", "rewards", "final_reward")
_SCORES = ("score", "final_score")
# the objects of a row that can contain verdicts, by the words of their keys: notes, results, and judgements
_NOTES = {"info", "metadata", "meta", "extra", "metrics", "annotation", "annotations", "state"}
_JUDGES = {
    "eval", "evals", "evaluation", "evaluations", "judge", "judgement", "judgment", "harness", "verifier",
    "verification", "grading", "verdict",
}  # fmt: skip
_RESULTS = _JUDGES | {"report", "reports", "result", "results", "outcome", "reward"}
_PLACE_WORDS = {"output", "info", "model"}
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
    "resolved full",
)
_WRONG = (
    "false", "no", "unresolved", "failed", "fail", "failure", "incorrect", "wrong", "unsuccessful", "resolved no",
    "resolved partial",
)  # fmt: skip
_WORDS = dict.fromkeys(_RIGHT, 1) | dict.fromkeys((*_WRONG, *(f"not {word}" for word in _RIGHT)), 0)
_MAX_DEPTH = 2  # test_result -> report
_MAX_KEY_CHARACTERS = 40
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_Kind = Literal["", "flag", "count", "rate", "status", "reward", "score", "failure"]


def says_failed(value: dict[str, Any]) -> bool:
    """Whether any verdict of the row is false or a number below 1."""
    return any(verdict < 1 for verdict in row_verdicts(value))


def says_succeeded(value: dict[str, Any]) -> bool:
    """Whether the row has a verdict and none says that the run failed."""
    verdicts = row_verdicts(value)
    return bool(verdicts) and min(verdicts) >= 1


def row_verdicts(value: dict[str, Any]) -> list[float]:
    """Every verdict of the row, and of the objects with results inside of it."""
    found = [*_verdicts(value, get_args(_Kind)), *_tests_verdict(value)]
    for place, is_judge in _objects(value, _MAX_DEPTH):
        kinds = ("flag", "failure", "count", "reward", "rate", *(("status",) if is_judge else ()))
        found += [*_verdicts(place, kinds), *_tests_verdict(place)]
    return found


def resolved_verdict(value: dict[str, Any]) -> list[float]:
    """The verdict under `resolved`; empty without one. `resolved: -1` means not judged."""
    return list(_verdicts({"resolved": value.get("resolved")}, ("flag",)))


def flag_verdicts(value: dict[str, Any]) -> list[float]:
    """The verdicts under `resolved`, `success`, `passed` and their like, and of a status such as `unresolved`."""
    is_clear = any(isinstance(stated, str) and "resolved" in stated.lower() for stated in value.values())
    return list(_verdicts(value, ("flag", "failure", *(("status",) if is_clear else ()))))


def _verdicts(value: dict[str, Any], kinds: tuple[_Kind, ...]) -> Iterator[float]:
    """Every verdict under keys of the given kinds; 'False' and words like it count as 0 or 1."""
    for key, stated in value.items():
        kind = _kind(key)
        if kind and kind in kinds and (verdict := _number(stated, kind)) is not None:
            yield verdict


@lru_cache(maxsize=4096)
def _kind(key: str) -> _Kind:
    """What a key states by its words; '' for a key that is no verdict."""
    if len(key) > _MAX_KEY_CHARACTERS:
        return ""
    name = _name(key)
    if name in _RATE_KEYS:
        return "rate"
    if name in _REWARDS:
        return "reward"
    if name in _SCORES:
        return "score"
    words = name.split("_")
    rest = {*words} - _OTHER_WORDS
    if words[-1] in _OTHER_WORDS and words[-1] not in _TESTS:  # `correct_answer` is an answer
        return ""
    if rest and rest <= _FAILURE_WORDS:
        return "failure"
    if rest and rest <= _RATES | _FLAG_WORDS and rest & _RATES:
        return "rate"
    if rest and rest <= _FLAG_WORDS:
        return "count" if _TESTS & {*words} else "flag"
    return "status" if rest and rest <= _STATUS_WORDS | _FLAG_WORDS else ""


@lru_cache(maxsize=4096)
def _place(key: str) -> Literal["", "notes", "result", "judge"]:
    """What the object under a key contains by the words of the key; '' for one without verdicts."""
    words = {*_name(key).split("_")} if len(key) <= _MAX_KEY_CHARACTERS else set()
    rest = words - _OTHER_WORDS - _PLACE_WORDS | words & _JUDGES
    if rest and rest <= _RESULTS:
        return "judge" if words & (_JUDGES | _TESTS) else "result"
    return "notes" if words & _NOTES and words <= _NOTES | _PLACE_WORDS else ""


def _name(key: str) -> str:
    return _HUMP.sub("_", key).lower().replace("-", "_")


def _objects(value: dict[str, Any], depth: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """The objects that can contain verdicts, and whether statuses in them are verdicts on the run."""
    for key, stated in value.items() if depth else ():
        if not (kind := _place(key)):
            continue
        is_json = isinstance(stated, str) and stated.lstrip()[:1] == "{"  # nested objects of Parquet files
        if found := embedded_object(stated) if is_json else optional_object(value, key):
            yield found, kind == "judge"
            if len(found) == 1 and isinstance(only := next(iter(found.values())), dict) and kind != "notes":
                yield only, kind == "judge"  # SWE-bench's report is keyed by the instance id
            yield from _objects(found, depth - 1)


def _tests_verdict(value: dict[str, Any]) -> list[float]:
    """The verdict of SWE-bench's lists of tests; empty without them."""
    tests = optional_object(value, "tests_status") or value
    wanted = [optional_object(tests, name) for name in ("FAIL_TO_PASS", "PASS_TO_PASS")]
    if any(lists.get("failure") for lists in wanted):
        return [0.0]
    return [1.0] if wanted[0].get("success") else []


def _number(stated: Any, kind: _Kind) -> float | None:
    """A verdict as a number; None for any other value. `failed: False` does not say that a run succeeded."""
    is_number_kind = kind in ("reward", "score")
    if is_number_kind and isinstance(stated, list) and stated:
        stated = stated[-1]
    if is_number_kind and isinstance(stated, dict):
        stated = next((stated[key] for key in ("score", "reward", "value", "total") if key in stated), None)
    if isinstance(stated, str):
        word = " ".join(stated.lower().replace("_", " ").split())
        if kind == "failure":
            return 0.0 if word in ("true", "yes") else None
        if word in _WORDS or kind == "status":
            return _WORDS.get(word)
        try:
            number = float(word)
        except ValueError:
            return None
        return number if math.isfinite(number) and (is_number_kind or number in (0, 1)) else None
    if kind == "failure":
        return 0.0 if stated is True else None
    if isinstance(stated, bool):
        return stated
    if kind == "status" or not isinstance(stated, int | float):
        return None
    return stated if _is_verdict(stated, kind) else None


def _is_verdict(number: float, kind: _Kind) -> bool:
    """Whether a number under a key of this kind judges the run: -1 means not judged, and 5 can be a count."""
    if kind in ("reward", "score"):
        return True
    return number == 0 or (number == 1 and kind != "count") or (kind == "flag" and 0 < number < 1)
