"""The files of the repository as a SWE agent saw them before it changed them, read from the outputs of its tools.

Known are numbered views (`cat -n`, `nl`, file editors, `Read`), SWE-agent's windows, and the complete output of `cat`,
`head` and `sed -n`. A view after the first change of a file is not used. Line numbers join several views of a file.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from posixpath import join

from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.swe.opened_paths import VIEW_TOOLS, in_repository

_NUMBERED = re.compile(r"result of running `(?:cat -n|nl)[^`]{0,40}` on (\S{1,1000}?):?\n")
_WINDOW = re.compile(r"\[File: (.{1,1000}?) \((\d+) lines total\)\]\n")
_NUMBERED_LINE, _WINDOW_LINE = re.compile(r" {0,8}(\d{1,7})[\t→](.*)"), re.compile(r"(\d{1,7}):(.*)")
_ABOVE = re.compile(r"\(\d+ more lines? (?:above|below)\)")
_CUT = re.compile(r"response clipped|truncated|elided|output limit", re.IGNORECASE)
_ENVELOPES = (
    re.compile(r"\n?\[The command completed with exit code.*\Z", re.DOTALL),
    re.compile(r"\n?\[(?:Python Interpreter|Command finished|Current working directory).*\Z", re.DOTALL),
    re.compile(r"\A(?:OBSERVATION:|EXECUTION RESULT of \[\w+\]:|Execution output of \[\w+\]:)\n?"),
    re.compile(r"\A<returncode>0</returncode>\n<output>\n?|\n?</output>\s*\Z"),
)
_FULL_VIEWS, _PART_VIEW = {"cat", "nl"}, re.compile(r"(\d+),(\d+)p")
_PATH_ARGUMENTS = ("path", "file_path", "filename", "file", "target_file")
_EDIT_COMMANDS = {"create", "str_replace", "insert", "undo_edit", "edit", "write", "append", "replace"}
_EDIT_TOOLS = {
    "edit", "edit_file", "write", "write_file", "create_file", "str_replace", "insert", "apply_patch", "multiedit",
}  # fmt: skip
_SHELL_EDIT = re.compile(
    r"\bsed\s+(?:-\w+\s+){0,3}-i|(?<![\d&=-])>(?!&)|\btee\b|\bpatch\b|\bgit\s+(?:apply|checkout|stash)\b|^edit\b"
)


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
    """The files that a step may change: those that it names, and those in the windows that it prints."""
    command, path = step.argument("command", "cmd", "input"), _path(step)
    if path:
        if step.tool.lower() in _EDIT_TOOLS or command in _EDIT_COMMANDS:
            yield in_repository(path)
    elif command and _SHELL_EDIT.search(command):
        yield from (in_repository(path) for path in _command_paths(command))
        yield from (in_repository(window[1]) for window in _WINDOW.finditer(step.output))


def _views(step: Step) -> Iterator[tuple[str, dict[int, str], int | None]]:
    """(path, lines by number, number of lines or None) of every view in the output of a step."""
    output = step.output
    for envelope in _ENVELOPES:
        output = envelope.sub("", output)
    is_whole = step.arguments.get("view_range") in (None, "", []) and not _CUT.search(output)
    for view, text in _sections(_NUMBERED, output):
        yield view[1], *_without_last_empty(_numbered(text, _NUMBERED_LINE), is_whole=is_whole)
    for window, text in _sections(_WINDOW, output):
        yield window[1], _numbered(text, _WINDOW_LINE), int(window[2])
    if not _NUMBERED.search(output) and not _WINDOW.search(output) and not _CUT.search(output):
        if step.tool.lower() in VIEW_TOOLS and (path := _path(step)):  # Claude Code
            is_whole = not any(step.arguments.get(name) for name in ("offset", "limit", "start_line", "end_line"))
            yield path, *_without_last_empty(_numbered(output, _NUMBERED_LINE), is_whole=is_whole)
        else:
            yield from _printed(step, output)


def _sections(head: re.Pattern[str], text: str) -> list[tuple[re.Match[str], str]]:
    """Every match with the text up to the next one."""
    found = list(head.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [(match, text[match.end() : end]) for match, end in zip(found, ends, strict=False)]


def _printed(step: Step, output: str) -> Iterator[tuple[str, dict[int, str], int | None]]:
    """The output of one command that prints one file."""
    folder, words = "", _words(step.argument("command", "cmd", "input"))
    if words[:1] == ["cd"] and words[2:3] == ["&&"]:
        folder, words = words[1], words[3:]
    if not words or any(word in ("|", ";", "&&", "||", ">") for word in words):
        return
    flags, paths = [word for word in words[1:] if word.startswith("-")], [w for w in words[1:] if not w.startswith("-")]
    texts = output.removesuffix("\n").split("\n")
    if words[0] == "sed" and flags == ["-n"] and len(paths) == 2 and (part := _PART_VIEW.fullmatch(paths[0])):
        first, last = int(part[1]), int(part[2])
        if len(texts) <= last - first + 1:
            yield join(folder, paths[1]), dict(enumerate(texts, start=first)), None
    elif words[0] in _FULL_VIEWS and len(paths) == 1 and output and "No such file" not in output:
        if flags in (["-n"], ["-ba"]):
            yield join(folder, paths[0]), *_without_last_empty(_numbered(output, _NUMBERED_LINE), is_whole=True)
        elif not flags and words[0] == "cat":
            yield join(folder, paths[0]), dict(enumerate(texts, start=1)), len(texts)


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


def _command_paths(command: str) -> list[str]:
    return [word for word in _words(command[:20_000]) if "/" in word or "." in word]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command.strip())
    except ValueError:  # an unclosed quote
        return []
