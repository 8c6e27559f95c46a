"""The patch that a SWE run made itself: from its row, otherwise from the edits of its editor tool.

Edits are replayed on what the run saw of each file. Lines that it never saw stand there as marks that no edit can
match, so a patch is made only of lines that were seen.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.swe.opened_paths import in_repository
from acc_megatron.data_tools.sources.swe.seen_files import SeenFile, edited_paths

_SUBMITTED_KEYS = (
    "model_patch", "generated_patch", "output_patch", "git_patch", "submission", "final_patch", "agent_patch",
    "pred_patch", "predicted_patch", "fix_patch", "model_diff", "git_diff", "final_diff",
)  # fmt: skip
_KEYS = (*_SUBMITTED_KEYS, "patch", "diff", "prediction")
_PLACES = ("info", "test_result", "metadata", "extra_info", "result")
_FAILED = ("no replacement was performed", "error", "invalid", "did not appear verbatim", "traceback")
_UNSEEN = "\0"  # begins the mark of a line that was not seen
_CONTEXT_LINES = (3, 2, 1)


def submitted_patch(value: dict[str, Any]) -> str:
    """The patch that a row's own fields say was submitted; '' if none does."""
    return _patch_under(_SUBMITTED_KEYS, value)


def stated_patch(value: dict[str, Any]) -> str:
    """The patch in a row's own fields; '' if it has none."""
    return _patch_under(_KEYS, value)


def _patch_under(keys: tuple[str, ...], value: dict[str, Any]) -> str:
    """A patch under one of the keys. A terminal added the \\r at the ends of its lines."""
    places = (value, *(optional_object(value, place) for place in _PLACES))
    texts = (place[key] for place in places for key in keys if isinstance(place.get(key), str))
    return next((text.replace("\r\n", "\n").strip("\n") for text in texts if "\n@@ " in text and "+++ " in text), "")


def patch_of_edits(steps: Iterable[Step], seen: Mapping[str, SeenFile]) -> str:
    """The unified diff of all edits; '' if there is none, or if an edit cannot be replayed."""
    before: dict[str, str | None] = {}
    after: dict[str, list[str]] = {}  # all states of a file, for undo_edit
    for step in steps:
        command, path = step.argument("command"), in_repository(step.argument("path", "file_path"))
        if not path or command not in ("create", "str_replace", "insert", "undo_edit"):
            if any(name in after or name in seen for name in edited_paths(step)):
                return ""  # a change in another way
            continue
        if any(word in step.output.lower()[:200] for word in _FAILED):
            continue
        if path not in after:
            before[path] = marked_text(seen[path]) if path in seen else None
            after[path] = [before[path] or ""]
        text = _edited(step, command, after[path])
        if text is None:
            return ""
        after[path].append(text)
    parts = (file_diff(path, before[path], states[-1]) for path, states in after.items())
    found = [part for part in parts if part is not None]
    return "\n".join(part for part in found if part) if len(found) == len(after) else ""


def marked_text(seen: SeenFile) -> str:
    """The text of a file in which each line that was not seen is a mark."""
    last = max(seen.lines, default=0)
    lines = [seen.lines.get(number, f"{_UNSEEN}{number}") for number in range(1, last + 1)]
    if not seen.is_complete:
        lines.append(f"{_UNSEEN}{last + 1}")
    return "\n".join(lines) + "\n"


def _edited(step: Step, command: str, states: list[str]) -> str | None:
    """The text after an edit; None if it cannot be replayed."""
    arguments, text = step.arguments, states[-1]
    if command == "undo_edit":
        return states[-2] if len(states) > 1 else None
    if command == "create":
        return arguments["file_text"] if isinstance(arguments.get("file_text"), str) else None
    new = arguments.get("new_str", "")
    if not isinstance(new, str):
        return None
    if command == "insert":
        try:
            number = int(arguments.get("insert_line", -1))
        except (TypeError, ValueError):
            return None
        lines = text.split("\n")
        return "\n".join([*lines[:number], *new.split("\n"), *lines[number:]]) if 0 <= number <= len(lines) else None
    old = arguments.get("old_str")
    return text.replace(old, new) if isinstance(old, str) and old and text.count(old) == 1 else None


def file_diff(path: str, before: str | None, after: str) -> str | None:
    """The diff of a file, '' without a change; None if it would contain a line that was not seen."""
    if before == after:
        return ""
    old, new = [[] if text is None else text.removesuffix("\n").split("\n") for text in (before, after)]
    names = ("/dev/null" if before is None else f"a/{path}", f"b/{path}")
    head = f"diff --git a/{path} b/{path}\n" + ("new file mode 100644\n" if before is None else "")
    for num_context in _CONTEXT_LINES:
        lines = list(difflib.unified_diff(old, new, *names, n=num_context, lineterm=""))
        if not any(_UNSEEN in line for line in lines):
            return head + "\n".join(lines)
    return None
