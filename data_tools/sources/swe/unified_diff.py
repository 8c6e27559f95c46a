"""Applies a unified diff to texts in memory, as strictly as `git apply`: exact context, counted lines, no fuzz.

As in git, a hunk whose lines are not where its header says is applied at the nearest place, a hunk for line 1 must be
at the start of the file, and a hunk without context after its changes must be at the end. Paths are labels: nothing is
opened or written. Binary patches are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class PatchError(Exception):
    """A patch that is malformed or does not apply; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Hunk:
    """The lines before and after with their newlines, and the stated 1-based line number of the old ones."""

    start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    ends_in_context: bool = False


@dataclass(slots=True)
class FileChange:
    """The change of one file; an old path of None creates it, a new path of None removes it."""

    old_path: str | None
    new_path: str | None
    hunks: list[Hunk] = field(default_factory=list)


def apply_patch(patch: str, files: Mapping[str, str]) -> dict[str, str | None]:
    """The files that `patch` changes: path -> new text, or None for one removed. Raises PatchError."""
    return apply_changes(parse_patch(patch), files)


def apply_changes(changes: list[FileChange], files: Mapping[str, str]) -> dict[str, str | None]:
    """The files after parsed changes, as `apply_patch` gives them. Raises PatchError."""
    changed: dict[str, str | None] = {}
    if not changes:
        raise PatchError("empty_patch", "the patch contains no file change")
    for change in changes:
        source = "" if change.old_path is None else changed.get(change.old_path, files.get(change.old_path))
        if source is None:
            raise PatchError("file_missing", f"{change.old_path!r} is not among the files")
        if change.old_path is None and change.new_path in {*files, *changed}:
            raise PatchError("file_exists", f"the patch creates {change.new_path!r}, which exists")
        text = _apply_hunks(source, change)
        if change.old_path is not None and change.old_path != change.new_path:
            changed[change.old_path] = None
        if change.new_path is not None:
            changed[change.new_path] = text
        elif text:
            raise PatchError(
                "does_not_apply", f"the patch removes {change.old_path!r}, but {len(text)} characters of it remain"
            )
    return changed


def reversed_changes(changes: list[FileChange]) -> list[FileChange]:
    """The changes that undo changes."""
    return [
        FileChange(
            change.new_path,
            change.old_path,
            [Hunk(hunk.start, hunk.new, hunk.old, hunk.ends_in_context) for hunk in change.hunks],
        )
        for change in changes
    ]


def parse_patch(patch: str) -> list[FileChange]:
    """The file changes of a unified diff, git's extended headers included. Raises PatchError('malformed')."""
    lines = patch.removesuffix("\n").split("\n")
    changes: list[FileChange] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise PatchError("binary", "binary patches are not supported")
        if line.startswith("rename from ") and lines[position + 1 : position + 2] != [""]:
            new = lines[position + 1]
            if not new.startswith("rename to "):
                raise PatchError("malformed", f"line {position + 1}: 'rename from' without 'rename to'")
            old = file_name(line.removeprefix("rename from "))
            changes.append(FileChange(old, file_name(new.removeprefix("rename to "))))
            position += 2
        elif line.startswith("--- ") and lines[position + 1 : position + 2] and lines[position + 1].startswith("+++ "):
            old, new_path = file_name(line[4:], "a/"), file_name(lines[position + 1][4:], "b/")
            is_renamed = changes and not changes[-1].hunks and changes[-1].new_path == new_path
            if not is_renamed:
                changes.append(FileChange(old, new_path))
            position = _hunks(lines, position + 2, changes[-1])
        else:
            position += 1
    return changes


def file_name(label: str, prefix: str = "") -> str | None:
    """The path in a line of a patch, without `prefix`; None for /dev/null.

    Git quotes a name with non-ASCII bytes and escapes them.
    """
    path = label.partition("\t")[0].rstrip("\r")
    if path.startswith('"') and len(path) > 1 and path.endswith('"'):
        path = _ESCAPE.sub(lambda match: _unescaped(match[1]), path[1:-1].encode()).decode(errors="replace")
    return None if path == "/dev/null" else path.removeprefix(prefix)


def _unescaped(escape: bytes) -> bytes:
    return bytes([int(escape, 8) & 0xFF]) if len(escape) == 3 else _LETTERS.get(escape, escape)


def _hunks(lines: list[str], position: int, change: FileChange) -> int:
    """Read all hunks of a file; returns the line after them."""
    first = position
    while position < len(lines) and (match := _HUNK.match(lines[position])):
        num_old, num_new = int(match[2] or 1), int(match[4] or 1)
        hunk = Hunk(int(match[1]))
        position += 1
        while len(hunk.old) < num_old or len(hunk.new) < num_new:
            if position == len(lines):
                raise PatchError(
                    "malformed", f"the patch ends inside a hunk that states {num_old} old and {num_new} new lines"
                )
            _take(hunk, lines[position], position)
            position += 1
        if position < len(lines) and lines[position].startswith("\\"):
            _end_without_newline(hunk, lines[position - 1])
            position += 1
        if len(hunk.old) != num_old or len(hunk.new) != num_new:
            raise PatchError(
                "malformed", f"line {position}: the hunk does not have the stated {num_old} old and {num_new} new lines"
            )
        change.hunks.append(hunk)
    if position == first:
        raise PatchError("malformed", f"line {position + 1}: no hunk after the names of the file")
    return position


def _take(hunk: Hunk, line: str, position: int) -> None:
    mark, text = line[:1], line[1:] + "\n"
    hunk.ends_in_context = mark in ("", " ")
    if mark == "\\":
        _end_without_newline(hunk, "-")  # it belongs to the removed line, because the hunk continues
    elif mark in ("", " "):  # editors remove the space of an empty context line
        hunk.old.append(text)
        hunk.new.append(text)
    elif mark == "-":
        hunk.old.append(text)
    elif mark == "+":
        hunk.new.append(text)
    else:
        raise PatchError("malformed", f"line {position + 1} is not a line of a hunk: {line!r:.80}")


def _end_without_newline(hunk: Hunk, line: str) -> None:
    sides = {"-": [hunk.old], "+": [hunk.new]}.get(line[:1], [hunk.old, hunk.new])
    for side in sides:
        if side:
            side[-1] = side[-1].removesuffix("\n")


def _apply_hunks(text: str, change: FileChange) -> str:
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    if not lines[-1]:
        lines.pop()
    shift, done = 0, 0
    for hunk in change.hunks:
        stated = hunk.start - (1 if hunk.old else 0) + shift
        place = _find(lines, hunk, stated, done)
        if place is None:
            raise PatchError("does_not_apply", f"{change.old_path!r}: the hunk for line {hunk.start} does not apply")
        lines[place : place + len(hunk.old)] = hunk.new
        done = place + len(hunk.new)
        shift += place - stated + len(hunk.new) - len(hunk.old)
    return "".join(lines)


def _find(lines: list[str], hunk: Hunk, stated: int, first: int) -> int | None:
    """The index of the hunk's old lines that is nearest to the stated one and not before `first`; None if absent."""
    last = len(lines) - len(hunk.old)
    candidates = range(first, last + 1)
    if hunk.start <= 1:
        candidates = candidates[:1] if first == 0 else range(0)
    if not hunk.ends_in_context:
        candidates = candidates[-1:] if candidates and candidates[-1] == last else range(0)
    places = [place for place in candidates if lines[place : place + len(hunk.old)] == hunk.old]
    return min(places, key=lambda place: abs(place - stated), default=None)
