"""Verdicts on SWE runs in the report files of test harnesses, which stand next to the runs.

Known are the reports of SWE-bench (`report.json` of an instance, `MODEL.RUN.json` of a run, `results.json` of
submissions), of OpenHands (`report.json`) and of AutoCodeRover (`final_report.json`): objects with a verdict for each
instance id, or with lists of ids of which one contains the resolved ones. An instance in another list than the resolved
ones was not resolved. A `resolved` without an id is about the runs in the same folder.

For a run, the report in the nearest folder above it counts, otherwise what all other reports agree on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS
from acc_megatron.data_tools.sources.verdict import resolved_verdict

REPORT_NAMES = ("report.json", "final_report.json", "results.json")
_RESOLVED_LISTS = ("resolved_ids", "resolved")
_UNJUDGED_LISTS = ("incomplete_ids", "unstopped_containers", "unremoved_images")
_RUN_KEYS = (*MESSAGE_KEYS, "turn_history", "steps", "patch", "files_at_base_commit", "model_patch")
_SUMMARY_KEY = b'"resolved_instances"'
_MAX_BYTES, _HEAD_BYTES = 64 << 20, 1_000
_ANY_RUN = ""  # the id of a verdict on all runs of a folder


@dataclass(slots=True)
class HarnessReports:
    """The verdicts of all reports: instance id -> folder of the report and whether it says that the run resolved it."""

    num_reports: int = 0
    _verdicts: dict[str, list[tuple[Path, bool]]] = field(default_factory=dict)

    def add(self, path: Path, *, has_runs: bool) -> bool:
        """Read a file if it is a report; False for any other file, and for a bare verdict in a folder without runs."""
        if not _can_be_report(path):
            return False
        try:
            found = verdicts_of_report(parse_json(path.read_bytes()))
        except BadJson:
            return False
        if not found or (_ANY_RUN in found and not has_runs):
            return False
        for id_, is_resolved in found.items():
            self._verdicts.setdefault(id_, []).append((path.absolute().parent, is_resolved))
        self.num_reports += 1
        return True

    def verdict(self, file: str, instance_id: str) -> bool | None:
        """Whether the run of an instance in a file resolved it; None if no report says it or reports disagree."""
        run_folder = Path(file).absolute().parent
        known = self._verdicts.get(instance_id, [])
        own = [(folder, found) for folder, found in self._verdicts.get(_ANY_RUN, []) if folder == run_folder]
        above = [(folder, found) for folder, found in known if run_folder.is_relative_to(folder)] + own
        depth = max((len(folder.parts) for folder, _ in above), default=0)
        verdicts = {found for folder, found in above if len(folder.parts) == depth} or {found for _, found in known}
        if above:
            return all(verdicts)
        return verdicts.pop() if len(verdicts) == 1 else None


def verdicts_of_report(value: Any) -> Mapping[str, bool]:
    """Instance id -> whether it was resolved; empty for an object that is no report."""
    if not isinstance(value, dict) or any(key in value for key in _RUN_KEYS):
        return {}
    lists = {key: _ids(found) for key, found in value.items() if isinstance(found, list)}
    if any(key in lists for key in _RESOLVED_LISTS):
        resolved = {id_ for key in _RESOLVED_LISTS for id_ in lists.get(key, [])}
        named = {id_ for key, ids in lists.items() if key not in _UNJUDGED_LISTS for id_ in ids}
        return {id_: id_ in resolved for id_ in named | resolved}
    if verdicts := resolved_verdict(value):
        return {_ANY_RUN: all(verdicts)}
    items = {id_: item for id_, item in value.items() if isinstance(item, dict)}
    if any(key in item for item in items.values() for key in _RUN_KEYS):
        return {}
    judged = {id_: resolved_verdict(item) for id_, item in items.items()}
    return {id_: all(verdicts) for id_, verdicts in judged.items() if verdicts}


def _can_be_report(path: Path) -> bool:
    """Whether the name or the first bytes are those of a report."""
    if path.suffix != ".json" or path.stat().st_size > _MAX_BYTES:
        return False
    if path.name in REPORT_NAMES or path.name.endswith((".report.json", "_report.json")):
        return True
    with path.open("rb") as file:
        return _SUMMARY_KEY in file.read(_HEAD_BYTES)


def _ids(items: list[Any]) -> list[str]:
    return [item for item in items if isinstance(item, str)]
