"""SWE-agent runs: the files of the gold patch are evidence, the other files the agent opened are distractors.

Texts are whole files at the base commit from the resources, never the windows that the agent saw: those change
with its edits. The answer is the gold patch.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Kind, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.fields import objects_of, optional_object, text_of
from acc_megatron.data_tools.sources.swe_instance import find_instance

REQUEST = "Write the patch that resolves this issue, as a unified diff against the files in the documents."
_OPENED = (
    re.compile(r"\[File: (.{1,1000}?) \(\d+ lines total\)\]"),
    re.compile(r"result of running `cat -n` on (\S{1,1000}?):\n"),
)
_TERMINAL = str.maketrans("", "", "\r\b")
_PATCHED = re.compile(r"^--- (?P<old>[^\t\r\n]+)[^\n]*\n\+\+\+ [^\n]+\n@@ ", re.MULTILINE)
_RENAMED = re.compile(r"^diff --git [^\n]*\n(?:[^\n]*\n){0,4}?rename from (?P<old>[^\r\n]+)", re.MULTILINE)


def recognises(value: dict[str, Any]) -> bool:
    """Whether a row is a SWE-agent `.traj`: steps with observations, or at least its history of messages."""
    steps, history = value.get("trajectory"), value.get("history")
    if isinstance(steps, list):
        return not steps or (isinstance(steps[0], dict) and "observation" in steps[0])
    return isinstance(history, list) and all(isinstance(item, dict) and "role" in item for item in history)


def read(row: Row, resources: Resources) -> Trajectory:
    """The run of a row joined with its task instance. Raises Dropped when it is unresolved or cannot be joined."""
    value = row.value
    if not isinstance(value.get("trajectory"), list):
        raise Dropped("no_trajectory", "only a history of messages, no 'trajectory' with steps")
    steps = objects_of(value, "trajectory")
    instance_id = find_instance(row, resources)
    instance = resources.instance(instance_id)
    _need_resolved(value, instance)
    patch = text_of(instance, "patch").strip("\r\n")
    if not patch.strip():
        raise Dropped("no_gold_patch", f"the patch of {instance_id} is empty")
    files = resources.files(instance_id)
    if not files:
        raise Dropped("no_files", f"no 'files_at_base_commit' for {instance_id}; give its store with --resources")
    evidence = _evidence(patched_files(patch), files, instance_id)
    patched = {piece.id for piece in evidence}
    opened = [path for path in opened_files(steps) if path not in patched]
    reasoning = "\n\n".join(thought for step in steps if (thought := _clean(step.get("thought")).strip()))
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
        notes={
            "evidence_rule": "gold_patch_files",
            "instance_id": instance_id,
            "run_verified": value_says_resolved(value, instance) is True,
            "opened_not_at_base_commit": [path for path in opened if path not in files],
        },
    )


def value_says_resolved(value: dict[str, Any], instance: dict[str, Any]) -> bool | None:
    """True or False where the run or its instance row says so, None where neither does."""
    verdicts = [
        place["resolved"]
        for place in (value, optional_object(value, "info"), instance)
        if isinstance(place.get("resolved"), bool)
    ]
    return all(verdicts) if verdicts else None


def patched_files(patch: str) -> list[str]:
    """Paths at the base commit that a unified diff changes, removes or renames; files it makes are none."""
    found = [match["old"] for match in _PATCHED.finditer(patch)]
    renamed = [match["old"] for match in _RENAMED.finditer(patch)]
    return list(dict.fromkeys([path.removeprefix("a/") for path in found if path != "/dev/null"] + renamed))


def opened_files(steps: list[dict[str, Any]]) -> list[str]:
    """Repository-relative paths of the file windows in the observations, once each in the order met."""
    return list(dict.fromkeys(_relative(path) for step in steps for path in _shown(step)))


def _shown(step: dict[str, Any]) -> Iterator[str]:
    observation = _clean(step.get("observation"))
    matches = [match for pattern in _OPENED for match in pattern.finditer(observation)]
    yield from (match[1] for match in sorted(matches, key=lambda match: match.start()))


def _relative(path: str) -> str:
    """Without the folder the repository is checked out in: `/testbed/a.py`, `/owner__repo/a.py` -> `a.py`."""
    return path.split("/", 2)[-1] if path.startswith("/") else path.removeprefix("./")


def _need_resolved(value: dict[str, Any], instance: dict[str, Any]) -> None:
    if value_says_resolved(value, instance) is False:
        raise Dropped("unresolved", "the run is marked resolved: false")
    status = optional_object(value, "info").get("exit_status")
    if isinstance(status, str) and not status.startswith("submitted"):
        raise Dropped("unresolved", f"the run ended with {status!r}, without a submission")


def _evidence(paths: list[str], files: Mapping[str, str], instance_id: str) -> tuple[Piece, ...]:
    missing = [path for path in paths if path not in files]
    if missing:
        raise Dropped("gold_file_missing", f"{instance_id}: not among its {len(files)} files: {missing}")
    if not paths:
        raise Dropped("no_evidence", f"the patch of {instance_id} changes no existing file")
    return tuple(_piece(path, files, "evidence") for path in paths)


def _piece(path: str, files: Mapping[str, str], kind: Kind) -> Piece:
    return Piece(id=path, title=path, text=files[path], kind=kind)


def _clean(text: object) -> str:
    """Without carriage returns and the backspaces of terminal spinners."""
    return text.translate(_TERMINAL) if isinstance(text, str) else ""
