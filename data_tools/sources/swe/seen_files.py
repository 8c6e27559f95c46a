"""The files of the repository as a SWE agent saw them before it changed them, read from the outputs of its tools.

Known are numbered views (file editors, `Read`), SWE-agent's windows, and the output of shell commands that print a file
(printed_lines.py). A view after the first change of a file is not used. Line numbers join several views of a file.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.swe.opened_paths import VIEW_TOOLS, in_repository
from acc_megatron.data_tools.sources.swe.printed_lines import NUMBERED_LINE, printed_lines

_NUMBERED = re.compile(r"result of running `(?:cat -n|nl)[^`]{0,40}` on (\S{1,1000}?):?\n")
_WINDOW = re.compile(r"\[File: (.{1,1000}?) \((\d+) lines total\)\]\n")
_WINDOW_LINE = re.compile(r"(\d{1,7})[:|](.*)")
_ABOVE = re.compile(r"\((?:\d+ more lines? (?:above|below)|this is the (?:beginning|end) of the file)\)")
_CUT = re.compile(r"response clipped|truncated|elided|output limit", re.IGNORECASE)
_ENVELOPES = (
    re.compile(r"\n?\[The command completed with exit code.*\Z", re.DOTALL),
    re.compile(r"\n?\[(?:Python Interpreter|Command finished|Current working directory).*\Z", re.DOTALL),
    re.compile(r"\A(?:OBSERVATION:|EXECUTION RESULT of \[\w+\]:|Execution output of \[\w+\]:)\n?"),
    re.compile(r"\A<returncode>0</returncode>\n<output>\n?|\n?</output>\s*\Z"),
)
_PATH_ARGUMENTS = ("path", "file_path", "filename", "file", "target_file")
_EDIT_COMMANDS = {"create", "str_replace", "insert", "undo_edit", "edit", "write", "append", "replace"}
_EDIT_TOOLS = {
    "edit", "edit_file", "write", "write_file", "create_file", "str_replace", "insert", "apply_patch", "multiedit",
}  # fmt: skip
_MAX_COMMAND_CHARACTERS = 20_000
_SHELL_EDIT = re.compile(
    r"\bsed\s+(?:-\w+\s+){0,3}-i|(?<![\d&=-])>(?!&)|\b(?:tee|patch|cp|mv|rm)\b|^(?:edit|create)\b|\bperl\s+-\w{0,4}i"
    r"|\bgit\s+(?:apply|checkout|stash|restore|reset)\b|\bopen\([^()\n]{0,200},\s*(?:mode=)?['\"][wa]|\bwrite_text\("
    r"|\b(?:edit|insert|append|create|write)_(?:file|content)\w*\("
)
_NAMED_PATH = re.compile(r"[\w@+.-]*[/.][\w@+./-]*")


@dataclass(slots=True)
class SeenFile:
    """The lines of one file by number (1-based), and its number of lines if a view showed its end."""

    path: str
    lines: dict[int, str] = field(default_factory=dict)
    num_lines: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every line was seen."""
        return self.num_lines is not None and len(self.lines) == self.num_lines

    def text(self) -> str:
        """The seen lines in order; a line in brackets stands for each gap."""
        parts, expected = [], 1
        for number in sorted(self.lines):
            if number > expected:
                parts.append(f"[lines {expected} to {number - 1} were not shown]")
            parts.append(self.lines[number])
            expected = number + 1
        if self.num_lines is None or expected <= self.num_lines:
            parts.append(f"[the lines from {expected} on were not shown]")
        return "\n".join(parts) + "\n"


def seen_files(steps: Iterable[Step]) -> dict[str, SeenFile]:
    """Repository-relative path -> what the run saw of the file before its first change, in the order of the views."""
    found: dict[str, SeenFile] = {}
    changed: set[str] = set()
    for step in steps:
        edited = set(edited_paths(step))
        changed |= edited
        for path, lines, num_lines in [] if edited else _views(step):
            if (path := in_repository(path)) and path not in changed and lines:
                seen = found.setdefault(path, SeenFile(path))
                seen.lines |= {number: text for number, text in lines.items() if number not in seen.lines}
                seen.num_lines = num_lines or seen.num_lines
    return found


def edited_paths(step: Step) -> Iterator[str]:
    """The files that a step may change: those that it names, also in a script, and those in the windows it prints."""
    command, path = step.argument("command", "cmd", "input", "code"), _path(step)
    if path:
        if step.tool.lower() in _EDIT_TOOLS or command in _EDIT_COMMANDS:
            yield in_repository(path)
    elif command and _SHELL_EDIT.search(command):
        yield from {in_repository(path) for path in _NAMED_PATH.findall(command[:_MAX_COMMAND_CHARACTERS])}
        yield from (in_repository(window[1]) for window in _WINDOW.finditer(step.output))


def _views(step: Step) -> Iterator[tuple[str, dict[int, str], int | None]]:
    """(path, lines by number, number of lines or None) of every view in the output of a step."""
    output = step.output
    for envelope in _ENVELOPES:
        output = envelope.sub("", output)
    is_whole = step.arguments.get("view_range") in (None, "", []) and not _CUT.search(output)
    for view, text in _sections(_NUMBERED, output):
        yield view[1], *_without_last_empty(_numbered(text, NUMBERED_LINE), is_whole=is_whole)
    for window, text in _sections(_WINDOW, output):
        yield window[1], _numbered(text, _WINDOW_LINE), int(window[2])
    if not _NUMBERED.search(output) and not _WINDOW.search(output) and not _CUT.search(output):
        if step.tool.lower() in VIEW_TOOLS and (path := _path(step)):  # Claude Code
            is_whole = not any(step.arguments.get(name) for name in ("offset", "limit", "start_line", "end_line"))
            yield path, *_without_last_empty(_numbered(output, NUMBERED_LINE), is_whole=is_whole)
        elif (printed := printed_lines(step.argument("command", "cmd", "input"), output)) is not None:
            yield printed.path, printed.lines, max(printed.lines) if printed.is_whole else None


def _sections(head: re.Pattern[str], text: str) -> list[tuple[re.Match[str], str]]:
    """Every match with the text up to the next one."""
    found = list(head.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [(match, text[match.end() : end]) for match, end in zip(found, ends, strict=False)]


def _numbered(text: str, pattern: re.Pattern[str]) -> dict[int, str]:
    """The numbered lines at the start of a text, as long as the numbers count up."""
    lines: dict[int, str] = {}
    for line in text.split("\n"):
        match = pattern.fullmatch(line)
        if match is None or (lines and int(match[1]) != next(reversed(lines)) + 1):
            if lines or not _ABOVE.fullmatch(line.strip()):
                break
            continue
        lines[int(match[1])] = match[2]
    return lines


def _without_last_empty(lines: dict[int, str], *, is_whole: bool) -> tuple[dict[int, str], int | None]:
    """The lines and their number; a view of a whole file numbers the nothing after its last newline."""
    last = next(reversed(lines), 0)
    if is_whole and last and not lines[last]:
        del lines[last]
        last -= 1
    return lines, last if is_whole and last and 1 in lines else None


def _path(step: Step) -> str:
    return next((step.arguments[key] for key in _PATH_ARGUMENTS if isinstance(step.arguments.get(key), str)), "")
