"""Reads SWE runs: files that the gold patch changes are evidence, other files that the agent opened are distractors.

Texts are complete files at the base commit, from a file store or a git repository. What the agent saw is not used,
because it changes with the agent's edits. The answer is the gold patch of an instance row or of the instance in the
run's row. A run without an instance that is known to have passed gives its own patch and what it saw (as_seen.py).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.fields import optional_object, text_of
from acc_megatron.data_tools.schema import Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.formats.log_format import FINISH_TOOLS, Step
from acc_megatron.data_tools.sources.resources import Resources, is_safe_path
from acc_megatron.data_tools.sources.swe.as_seen import RULE, pieces_as_seen, statement_of
from acc_megatron.data_tools.sources.swe.bug_patch import makes_bug, with_bug
from acc_megatron.data_tools.sources.swe.instance import find_instance, instance_id_of, own_instance
from acc_megatron.data_tools.sources.swe.opened_paths import opened_files
from acc_megatron.data_tools.sources.swe.own_patch import patch_of_edits, stated_patch, submitted_patch
from acc_megatron.data_tools.sources.swe.seen_files import seen_files
from acc_megatron.data_tools.sources.swe.steps import steps_of
from acc_megatron.data_tools.sources.swe.unified_diff import file_name
from acc_megatron.data_tools.sources.verdict import resolved_verdict, row_verdicts
from acc_megatron.errors import Dropped

REQUEST = "Write the patch that resolves this issue, as a unified diff against the files in the documents."
# reasons for which a triple cannot be made although nothing is wrong with the run
MISSING_PARTS = (
    "no_instance_row",
    "ambiguous_instance",
    "no_gold_patch",
    "no_files",
    "gold_file_missing",
    "no_evidence",
    "own_patch_not_seen",
    "own_patch_malformed",
    "own_patch_binary",
)
_SUBMITTED = ("submit", "finish", "complete", "success", "agent")  # exit statuses of runs that ended by themselves
_SUBMISSION = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # of mini-swe-agent
_PATCHED = re.compile(r"^--- (?P<old>[^\t\r\n]+)[^\n]*\n\+\+\+ [^\n]+\n@@ ", re.MULTILINE)
_RENAMED = re.compile(r"^diff --git [^\n]*\n(?:[^\n]*\n){0,4}?rename from (?P<old>[^\r\n]+)", re.MULTILINE)


def read(row: Row, resources: Resources) -> Trajectory:
    """The run of a row with its task instance. Raises Dropped for an unresolved run or a missing instance."""
    value = row.value
    steps = steps_of(value)
    instance = own_instance(value, resources)
    if instance is None:
        try:
            instance = resources.instance(find_instance(row, resources))
        except Dropped as missing:
            if missing.reason != "no_instance_row":
                raise
            return _read_as_seen(row, steps, resources, missing)
    instance_id = text_of(instance, "instance_id")
    is_verified = _is_resolved(row, instance, instance_id, resources)
    patch = text_of(instance, "patch").strip("\n")  # the last line may end in \r, as in its file
    if not patch.strip():
        raise Dropped("no_gold_patch", f"the patch of {instance_id} is empty")
    files = resources.files(instance_id, instance)
    if not files:
        wanted = f"{instance.get('repo')!r:.100} at {instance.get('base_commit')!r:.60}"
        raise Dropped("no_files", f"{instance_id}: give its files or the repository {wanted} with --resources")
    if makes_bug(instance):
        files, patch = with_bug(patch, files)
    evidence = _evidence(patched_files(patch), files, instance_id)
    patched = {piece.id for piece in evidence}
    opened = [path for path in opened_files(steps) if path not in patched]
    reasoning = reasoning_of(steps)
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


def _read_as_seen(row: Row, steps: list[Step], resources: Resources, missing: Dropped) -> Trajectory:
    """The run with its own patch and the files as it saw them (as_seen.py).

    Raises Dropped('no_instance_row') for a run without a verdict or without a patch of its own.
    """
    instance_id = instance_id_of(row, resources)
    if not _is_resolved(row, {}, instance_id, resources):
        raise Dropped(
            missing.reason,
            f"{missing.detail}; its own patch is not used, because nothing says that it passed the tests",
        )
    seen = seen_files(steps)
    stated = stated_patch(row.value)
    patch = stated or patch_of_edits(steps, seen)
    if not patch:
        raise Dropped(
            missing.reason,
            f"{missing.detail}; the row has no patch of its own either, and its edits cannot be replayed",
        )
    evidence, distractors = pieces_as_seen(patch, seen)
    trajectory = run_alone(row, resources, missing)
    notes = {
        "evidence_rule": RULE,
        "repo": row.value.get("repo"),
        "patch_source": "row" if stated else "edits",
        "partly_seen_files": [file.path for file in seen.values() if not file.is_complete],
    }
    return replace(
        trajectory,
        question=f"{trajectory.question}\n\n{REQUEST}",
        evidence=evidence,
        distractors=distractors,
        answer=patch,
        ground_truth=patch,
        notes={key: value for key, value in trajectory.notes.items() if key != "no_triple"} | notes,
    )


def run_alone(row: Row, resources: Resources, missing: Dropped) -> Trajectory:
    """The run of a row without evidence and answer. Raises Dropped for an unresolved run."""
    steps = steps_of(row.value)
    instance_id = instance_id_of(row, resources)
    is_verified = _is_resolved(row, {}, instance_id, resources)
    reasoning = reasoning_of(steps)
    return Trajectory(
        id=f"swe-{instance_id or 'unknown'}-{row.sha256[:16]}",
        agent="swe",
        question=statement_of(row.value),
        evidence=(),
        distractors=(),
        reasoning=reasoning,
        reasoning_source="agent" if reasoning else "none",
        answer="",
        ground_truth="",
        provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        is_judged=is_verified,
        notes={"instance_id": instance_id, "run_verified": is_verified, "no_triple": str(missing)},
    )


def reasoning_of(steps: Iterable[Step]) -> str:
    """The thoughts of all steps; what an agent says as it ends the run leads to no further step."""
    thoughts = (step.thought.strip() for step in steps if not _ends_run(step))
    return "\n\n".join(thought for thought in thoughts if thought)


def _ends_run(step: Step) -> bool:
    command = step.argument("command", "cmd").strip()
    return step.tool.lower() in FINISH_TOOLS or command in ("submit", "exit") or _SUBMISSION in command


def value_says_resolved(value: dict[str, Any], instance: dict[str, Any]) -> bool | None:
    """The verdict of the run or its instance row; None if neither has one."""
    verdicts = [*row_verdicts(value), *resolved_verdict(instance)]
    if (target := value.get("target")) in (0, 1):  # the key of published SWE-agent runs; -1 means not judged
        verdicts.append(target)
    return all(verdict >= 1 for verdict in verdicts) if verdicts else None


def patched_files(patch: str) -> list[str]:
    """Paths at the base commit that a unified diff changes, removes or renames; new files are left out."""
    found = [file_name(match["old"], "a/") for match in _PATCHED.finditer(patch)]
    found += [file_name(match["old"]) for match in _RENAMED.finditer(patch)]
    return list(dict.fromkeys(path for path in found if path is not None))


def _is_resolved(row: Row, instance: dict[str, Any], instance_id: str, resources: Resources) -> bool:
    """Whether the run is known to resolve the issue; raises Dropped('unresolved') if it is known not to."""
    value = row.value
    reported = resources.reports.verdict(row.file, instance_id, submitted_patch(value))
    own = value_says_resolved(value, instance)
    if own is False:
        raise Dropped("unresolved", "the row says that the run did not resolve the issue")
    if reported is False:
        raise Dropped("unresolved", "the report of a test harness on these runs does not list it as resolved")
    for place in (value, optional_object(value, "info")):
        status = place.get("exit_status")
        if isinstance(status, str) and status.strip() and not status.strip().lower().startswith(_SUBMITTED):
            raise Dropped("unresolved", f"the run ended without a submission: exit status {status!r:.100}")
    return own is True or reported is True


def _evidence(paths: list[str], files: Mapping[str, str], instance_id: str) -> tuple[Piece, ...]:
    if unsafe := [path for path in paths if not is_safe_path(path)]:
        raise Dropped("unsafe_path", f"{instance_id}: the patch names {unsafe!r:.300}")
    missing = [path for path in paths if path not in files]
    if missing:
        raise Dropped("gold_file_missing", f"{instance_id}: the {len(files)} files at the base commit lack {missing}")
    if not paths:
        raise Dropped("no_evidence", f"the patch of {instance_id} changes no existing file")
    return tuple(_piece(path, files, "evidence") for path in paths)


def _piece(path: str, files: Mapping[str, str], kind: Kind) -> Piece:
    return Piece(id=path, title=path, text=files[path], kind=kind)
