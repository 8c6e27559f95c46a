"""What the report of a test harness says about instances, whatever harness wrote it.

Known are the reports of SWE-bench (`report.json` of an instance, `MODEL.RUN.json` of a run, `results.json` of
submissions), of OpenHands (`report.json`, rows of `output.swebench_eval.jsonl`), of SWE-smith, of AutoCodeRover
(`final_report.json`) and of Harbor (`result.json`), and others like them: objects with a verdict for each instance id,
lists of objects that name their instance, and lists of ids of which one contains the resolved ones. An instance in
another list than the resolved ones was not resolved, and neither was one that is not in a report with the resolved ones
only.
"""

from collections.abc import Mapping
from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS
from acc_megatron.data_tools.sources.verdict import flag_verdicts, resolved_verdict, row_verdicts

ANY_RUN = ""
"""The id of a verdict on the runs next to a report."""
OTHERS = "*"
"""The id of the verdict of a report on every instance that it does not list."""
_RESOLVED_LISTS = ("resolved_ids", "resolved", "ids_resolved", "resolved_instances")
_UNJUDGED_LISTS = ("incomplete_ids", "unstopped_containers", "unremoved_images")
_INNER_KEYS = ("instances", "results", "reports", "details", "evaluations")
_MAX_LABEL_CHARACTERS = 500
_RUN_KEYS = (*MESSAGE_KEYS, "turn_history", "steps", "patch", "files_at_base_commit", "model_patch")


def verdicts_of_report(value: Any) -> Mapping[str, bool]:
    """Whether each instance was resolved, by its id; empty for a value that is not a report."""
    if isinstance(value, list):
        rows = [item for item in value if isinstance(item, dict)]
        judged = {row["instance_id"]: verdicts for row in rows if (verdicts := verdicts_of_row(row))}
        return {id_: all(verdicts) for id_, verdicts in judged.items()}
    if not isinstance(value, dict) or any(key in value for key in _RUN_KEYS):
        return {}
    lists = {key: _ids(found) for key, found in value.items() if isinstance(found, list)}
    if any(key in lists for key in _RESOLVED_LISTS):
        resolved = {id_ for key in _RESOLVED_LISTS for id_ in lists.get(key, [])}
        named = {id_ for key, ids in lists.items() if key not in _UNJUDGED_LISTS for id_ in ids}
        others = {OTHERS: False} if named == resolved else {}
        return {id_: id_ in resolved for id_ in named | resolved} | others
    if verdicts := [*flag_verdicts(value), *row_verdicts({"verifier": optional_object(value, "verifier_result")})]:
        return {ANY_RUN: min(verdicts) >= 1}
    if found := _by_id(value):
        return found
    inner = (verdicts_of_report(value[key]) for key in _INNER_KEYS if isinstance(value.get(key), dict | list))
    return next((found for found in inner if found), {})


def _by_id(value: dict[str, Any]) -> dict[str, bool]:
    """The verdicts of an object whose keys are ids: objects, or words and truth values if the key is surely an id."""
    found: dict[str, bool] = {}
    for id_, item in value.items():
        if isinstance(item, dict) and any(key in item for key in _RUN_KEYS):
            return {}
        is_id = "__" in id_
        stated = item if isinstance(item, dict) else {"resolved": item} if is_id else {}
        if verdicts := row_verdicts(stated) if is_id else resolved_verdict(stated):
            found[id_] = min(verdicts) >= 1
    return found


def verdicts_of_row(value: dict[str, Any]) -> list[float]:
    """The verdicts of a row on the instance that it names; empty for a row that can be a run or states none."""
    report = optional_object(value, "report") or optional_object(value, "test_result")
    places = (value, report, optional_object(report, "report"))
    is_named = isinstance(value.get("instance_id"), str) and not can_be_run(value)
    if not is_named:
        return []
    is_short = all(len(text) <= _MAX_LABEL_CHARACTERS for text in value.values() if isinstance(text, str))
    own = flag_verdicts if is_short else resolved_verdict  # a long text can be a run
    return [verdict for place in places for verdict in own(place)]


def can_be_run(value: dict[str, Any]) -> bool:
    """Whether a row has room for a run: a list of objects, or the root of a tree."""
    lists = (found for found in value.values() if isinstance(found, list))
    return "root" in value or any(isinstance(item, dict) for found in lists for item in found)


def _ids(items: list[Any]) -> list[str]:
    return [item for item in items if isinstance(item, str)]
