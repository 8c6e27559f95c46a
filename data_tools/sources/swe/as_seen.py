"""Triples of SWE runs without an instance row: the run's own patch, and the files that it changes as the run saw them.

Only a run that is known to have passed is used. Every line that the patch removes or keeps as context must have been
seen, with its number, before the run changed the file: otherwise the patch does not follow from the evidence.
"""

import re
from collections.abc import Mapping
from typing import Any

from acc_megatron.data_tools.schema import Kind, Piece
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of
from acc_megatron.data_tools.sources.formats.swe_agent import first_prompt
from acc_megatron.data_tools.sources.resources import is_safe_path
from acc_megatron.data_tools.sources.swe.seen_files import SeenFile
from acc_megatron.data_tools.sources.swe.unified_diff import Hunk, PatchError, parse_patch
from acc_megatron.errors import Dropped

RULE = "as_seen"
_STATEMENT_KEYS = ("problem_statement", "issue", "issue_text", "task_description")
_MAX_LABEL_CHARACTERS = 15  # `task` can be a label ("swe") and a text
_OTHER_KEYS = ("problem", "issue_body", "question", "instruction", "task", "description")
_TAGS = (
    "pr_description", "issue_description", "github_issue", "issue", "problem_statement", "task_description", "task",
)  # fmt: skip
_ISSUE = re.compile(r"^ISSUE:[ \t]*\n(.*?)(?=^INSTRUCTIONS:|\Z)", re.DOTALL | re.MULTILINE)


def statement_of(value: dict[str, Any]) -> str:
    """The problem statement of a row, or in the tags of its first prompt. Raises Dropped('no_question')."""
    if found := next((text for key in _STATEMENT_KEYS if (text := _text(value.get(key)))), ""):
        return found
    prompt = first_prompt(value) or transcript_of(value).prompt
    for tag in _TAGS:
        _, mark, rest = prompt.partition(f"<{tag}>")
        inside, end, _ = rest.partition(f"</{tag}>")
        if mark and end and inside.strip():
            return inside.strip().removeprefix("Consider the following PR description:").strip()
    if issue := _ISSUE.search(prompt):
        return issue[1].strip()
    others = (_text(value.get(key)) for key in _OTHER_KEYS)
    if found := next((text for text in others if len(text) > _MAX_LABEL_CHARACTERS or " " in text), ""):
        return found
    if not prompt.strip():
        raise Dropped("no_question", "the row has neither 'problem_statement' nor a first message of the user")
    return prompt.strip()


def _text(stated: object) -> str:
    """A text, or the title and body of an issue; '' for anything else."""
    if isinstance(stated, dict):
        parts = (stated.get(key) for key in ("title", "body"))
        stated = "\n\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
    return stated.strip() if isinstance(stated, str) else ""


def pieces_as_seen(patch: str, seen: Mapping[str, SeenFile]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """The files that a patch changes, and the other files that the run saw.

    Raises Dropped: own_patch_malformed, own_patch_not_seen, unsafe_path, and no_evidence if it changes no known file.
    """
    try:
        changes = parse_patch(patch)
    except PatchError as error:
        raise Dropped(f"own_patch_{error.reason}", error.detail) from None
    old = {change.old_path: change.hunks for change in changes if change.old_path is not None}
    if not old:
        raise Dropped("no_evidence", f"the run's own patch changes no existing file, only {len(changes)} new ones")
    if unsafe := [path for path in old if not is_safe_path(path)]:
        raise Dropped("unsafe_path", f"the run's own patch names {unsafe!r:.300}")
    for path, hunks in old.items():
        if path not in seen:
            raise Dropped(
                "own_patch_not_seen", f"no output before the run changed {path!r:.200} shows a numbered line of it"
            )
        for hunk in hunks:
            _check_seen(hunk, seen[path])
    evidence = tuple(_piece(seen[path], "evidence") for path in old)
    others = (file for path, file in seen.items() if path not in old and is_safe_path(path))
    return evidence, tuple(_piece(file, "distractor") for file in others)


def _check_seen(hunk: Hunk, file: SeenFile) -> None:
    for number, line in enumerate(hunk.old, start=hunk.start):
        if file.lines.get(number) != line.removesuffix("\n"):
            shown = "show another text in" if number in file.lines else "do not show"
            raise Dropped(
                "own_patch_not_seen", f"the outputs before the run changed {file.path!r:.200} {shown} line {number}"
            )


def _piece(file: SeenFile, kind: Kind) -> Piece:
    return Piece(id=file.path, title=file.path, text=file.text(), kind=kind)
