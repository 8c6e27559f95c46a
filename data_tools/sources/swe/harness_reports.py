"""Verdicts on SWE runs in the report files of test harnesses, which stand next to the runs.

report_contents.py says what a report can contain. A verdict without an id is about the runs in the folder of the report
or right below it, and about the instance that the folder is named after; one in a file that is named after a run is
about this run.

A report of another run of the same instance must not count. A report next to the tested `patch.diff` (SWE-bench) is
about the run that made this patch, and a report above a file with the name of the run's file is about that file. Of the
other reports, those count that share the deepest folder with the run, and among them those that contain the name of one
of the run's folders, if any does.
"""

import re
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.sources.swe.report_contents import ANY_RUN, OTHERS, verdicts_of_report, verdicts_of_row

REPORT_NAMES = ("report.json", "final_report.json", "results.json")
_REPORT_NAME = re.compile(
    r"(?:^|[._-])(?:reports?|results?|evaluation|eval|verdicts?|scores?|grade|grading|outcome|status|judgement|judgment)$"
)
_RUN_SUFFIXES = (".traj.json", ".traj", ".jsonl", ".json")
_SUMMARY_KEY = b'"resolved_instances"'
_MAX_BYTES, _HEAD_BYTES = 64 << 20, 1_000
_TESTED_PATCH = "patch.diff"
_PULL_REQUEST = re.compile(r"([\w.-]+)/([\w.-]+):pr-(\d+)")  # an id of Multi-SWE-bench


class Verdict(NamedTuple):
    """What the report at `path` says about one instance; `patch` is the tested patch if the report states it."""

    path: Path
    is_resolved: bool
    patch: str = ""


@dataclass(slots=True)
class HarnessReports:
    """The verdicts of all reports by instance id, and the files of the inputs by name."""

    num_reports: int = 0
    files: dict[str, list[Path]] = field(default_factory=dict)
    _verdicts: dict[str, list[Verdict]] = field(default_factory=dict)

    def add(self, path: Path, *, has_runs: bool) -> bool:
        """Read a file if it is a report; False for any other file."""
        if not _can_be_report(path):
            return False
        try:
            found = verdicts_of_report(parse_json(path.read_bytes()))
        except BadJson:
            return False
        run = self._run_of(path)
        bare = [run] if run else [path.parent.name, *([ANY_RUN] if has_runs else [])]
        for id_, is_resolved in found.items():
            for known_as in bare if id_ == ANY_RUN else [id_]:
                self._add(known_as, Verdict(path.absolute(), is_resolved))
        self.num_reports += bool(found)
        return bool(found)

    def add_row(self, value: dict[str, Any], path: Path) -> None:
        """Add the verdict of a row, if it has one."""
        if verdicts := verdicts_of_row(value):
            patch = value.get("model_patch")
            verdict = Verdict(path.absolute(), all(verdicts), patch if isinstance(patch, str) else "")
            self._add(value["instance_id"], verdict)

    def _run_of(self, report: Path) -> str:
        """The name without suffix of the run that a report is named after (`a.traj`, `a.report.json`); '' if none."""
        name = _REPORT_NAME.sub("", report.stem)
        runs = (file for suffix in _RUN_SUFFIXES for file in self.files.get(f"{name}{suffix}", []))
        return name if name and any(file.parent == report.parent for file in runs) else ""

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._verdicts

    def _add(self, instance_id: str, verdict: Verdict) -> None:
        self._verdicts.setdefault(_PULL_REQUEST.sub(r"\1__\2-\3", instance_id), []).append(verdict)

    def verdict(self, file: str, instance_id: str, patch: str = "") -> bool | None:
        """Whether the run of an instance in a file resolved it; None if no report says it or reports disagree.

        `patch` is the patch that the run made, or '' if it is not known.
        """
        run = Path(file).absolute()
        stated = self._verdicts.get(instance_id, [])
        known = [found for found in stated if self._can_be_about(found, run, patch)]
        stem = next((run.name.removesuffix(end) for end in _RUN_SUFFIXES if run.name.endswith(end)), "")
        if stem and stem != instance_id:
            known += [found for found in self._verdicts.get(stem, []) if found.path.parent == run.parent]
        if instance_id and not known:
            known = [found for found in self._verdicts.get(OTHERS, []) if run.is_relative_to(found.path.parent)]
        folders = (run.parent, run.parent.parent)  # Harbor keeps the run in a folder below its result
        known += [found for found in self._verdicts.get(ANY_RUN, []) if found.path.parent in folders]
        depths = [_num_shared(found.path, run) for found in known]
        nearest = [found for found, depth in zip(known, depths, strict=True) if depth == max(depths)]
        names = {*run.parent.parts, run.name.partition(".")[0]} - {instance_id}
        named = [found for found in nearest if not names.isdisjoint(_names(found.path, run))]
        if not named and len({found.path.name for found in stated if _names_run(found.path)}) > 1:
            nearest = [found for found in nearest if not _names_run(found.path)]  # these name several other runs
        verdicts = {found.is_resolved for found in named or nearest}
        if any(run.is_relative_to(found.path.parent) for found in nearest):
            return all(verdicts)
        return verdicts.pop() if len(verdicts) == 1 else None

    def _can_be_about(self, found: Verdict, run: Path, patch: str) -> bool:
        folder, tested = found.path.parent, found.path.with_name(_TESTED_PATCH)
        if patch and found.patch:
            return _plain(found.patch) == _plain(patch)
        if run.is_relative_to(folder):
            return True
        if patch and tested.is_file():
            return _plain(tested.read_text(encoding="utf-8", errors="replace")) == _plain(patch)
        if not _run_names(found.path).isdisjoint(folder.parts):  # the folder of another run
            return not _names(found.path, run).isdisjoint(run.parts)
        return not any(file.absolute().is_relative_to(folder) for file in self.files.get(run.name, []))


def _can_be_report(path: Path) -> bool:
    """Whether the name or the first bytes are those of a report."""
    if path.suffix != ".json" or path.stat().st_size > _MAX_BYTES:
        return False
    if _REPORT_NAME.search(path.stem):
        return True
    with path.open("rb") as file:
        return _SUMMARY_KEY in file.read(_HEAD_BYTES)


def _names_run(report: Path) -> bool:
    """Whether a report is named `MODEL.RUN.json`, as SWE-bench's."""
    _, dot, run = report.stem.rpartition(".")
    return report.suffix == ".json" and bool(dot) and _REPORT_NAME.match(run) is None


def _num_shared(first: Path, second: Path) -> int:
    """The number of folders that contain both files."""
    pairs = zip(first.parent.parts, second.parent.parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _names(report: Path, run: Path) -> set[str]:
    """The folders of a report that do not contain the run, and what `RUN` can be in the name of its file."""
    return _run_names(report) | {*report.parent.parts[_num_shared(report, run) :]}


def _run_names(report: Path) -> set[str]:
    """The ends of `MODEL.RUN` after each dot."""
    parts = report.stem.split(".")
    return {".".join(parts[i:]) for i in range(1, len(parts))}


def _plain(patch: str) -> str:
    return patch.replace("\r\n", "\n").strip()
