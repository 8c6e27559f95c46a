"""SWE runs: the files of the gold patch are evidence, the other files the agent opened are distractors.

Texts are whole files at the base commit from a store or a git repository, never the windows that the agent saw: those
change with its edits. The answer is the gold patch, from an instance row or from the instance inside the run's row.
"""

import re
from collections.abc import Mapping
from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources, is_safe_path
from acc_megatron.data_tools.schema import Dropped, Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.fields import optional_object, text_of
from acc_megatron.data_tools.sources.swe_instance import find_instance, own_instance
from acc_megatron.data_tools.sources.swe_paths import opened_files
from acc_megatron.data_tools.sources.swe_steps import is_swe_run, steps_of
from acc_megatron.data_tools.unified_diff import file_name

REQUEST = "Write the patch that resolves this issue, as a unified diff against the files in the documents."
_PATCHED = re.compile(r"^--- (?P<old>[^\t\r\n]+)[^\n]*\n\+\+\+ [^\n]+\n@@ ", re.MULTILINE)
_RENAMED = re.compile(r"^diff --git [^\n]*\n(?:[^\n]*\n){0,4}?rename from (?P<old>[^\r\n]+)", re.MULTILINE)


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row is a run of a SWE agent in a layout that `steps_of` reads."""
    return is_swe_run(value)


def read(row: Row, resources: Resources) -> Trajectory:
    """The run of a row joined with its task instance. Raises Dropped when it is unresolved or cannot be joined."""
    value = row.value
    steps = steps_of(value)
    instance = own_instance(value, resources) or resources.instance(find_instance(row, resources))
    instance_id = text_of(instance, "instance_id")
    _need_resolved(value, instance)
    patch = text_of(instance, "patch").strip("\n")  # its last line may end in \r, as its file's do
    if not patch.strip():
        raise Dropped("no_gold_patch", f"the patch of {instance_id} is empty")
    files = resources.files(instance_id, instance)
    if not files:
        wanted = f"{instance.get('repo')!r:.100} at {instance.get('base_commit')!r:.60}"
        raise Dropped("no_files", f"{instance_id}: give a store of its files or the repository {wanted} by --resources")
    evidence = _evidence(patched_files(patch), files, instance_id)
    patched = {piece.id for piece in evidence}
    opened = [path for path in opened_files(steps) if path not in patched]
    reasoning = "\n\n".join(thought for step in steps if (thought := step.thought.strip()))
    is_verified = value_says_resolved(value, instance) is True
    return Trajectory(
        id=f"swe-{instance_id}-{row.sha256[:16]}",
        agent="swe",
        question=f"{text_of(instance, 'problem_statement').strip()}\n\n{REQUEST}",
        evidence=evidence,
        distractors=tuple(_piece(path, files, "distractor") for path in opened if path in files),
        reasoning=reasoning,
        reasoning_source="agent" if reasoning else "none",
        answer=patch,
        ground_truth=patch,
        provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        is_judged=is_verified,
        notes={
            "evidence_rule": "gold_patch_files",
            "instance_id": instance_id,
            "repo": instance.get("repo"),
            "base_commit": instance.get("base_commit"),
            "run_verified": is_verified,
            "opened_not_at_base_commit": [path for path in opened if path not in files],
        },
    )


def value_says_resolved(value: dict[str, Any], instance: dict[str, Any]) -> bool | None:
    """True or False where the run or its instance row says so, None where neither does."""
    result = optional_object(value, "test_result")
    reports = (optional_object(value, "report"), optional_object(result, "report"))
    places = (value, optional_object(value, "info"), instance, *reports)
    found = [place.get("resolved") for place in places] + [value.get("target")]  # of published SWE-agent runs
    verdicts = [verdict for verdict in found if verdict in (0, 1)]  # true and false too; -1 is not judged
    return all(verdicts) if verdicts else None


def patched_files(patch: str) -> list[str]:
    """Paths at the base commit that a unified diff changes, removes or renames; files it makes are none."""
    found = [file_name(match["old"], "a/") for match in _PATCHED.finditer(patch)]
    found += [file_name(match["old"]) for match in _RENAMED.finditer(patch)]
    return list(dict.fromkeys(path for path in found if path is not None))


def _need_resolved(value: dict[str, Any], instance: dict[str, Any]) -> None:
    if value_says_resolved(value, instance) is False:
        raise Dropped("unresolved", "the run is marked resolved: false")
    status = optional_object(value, "info").get("exit_status")
    if isinstance(status, str) and not status.lower().startswith("submitted"):
        raise Dropped("unresolved", f"the run ended with {status!r:.100}, without a submission")


def _evidence(paths: list[str], files: Mapping[str, str], instance_id: str) -> tuple[Piece, ...]:
    if unsafe := [path for path in paths if not is_safe_path(path)]:
        raise Dropped("unsafe_path", f"{instance_id}: the patch names {unsafe!r:.300}")
    missing = [path for path in paths if path not in files]
    if missing:
        raise Dropped("gold_file_missing", f"{instance_id}: not among its {len(files)} files: {missing}")
    if not paths:
        raise Dropped("no_evidence", f"the patch of {instance_id} changes no existing file")
    return tuple(_piece(path, files, "evidence") for path in paths)


def _piece(path: str, files: Mapping[str, str], kind: Kind) -> Piece:
    return Piece(id=path, title=path, text=files[path], kind=kind)
