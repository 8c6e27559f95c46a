"""The lines of one file, by number, in the output of a shell command that prints it.

Known are `cat`, `head`, `sed -n 'A,Bp'` and `tail -n +A`, whose lines are counted, `cat -n`, `nl -ba` and `grep -n`,
which number their lines, and pipes of them.
"""

import re
import shlex
from itertools import pairwise
from posixpath import join
from typing import NamedTuple

NUMBERED_LINE = re.compile(r" {0,8}(\d{1,7})[\t→](.*)")
_FOUND_LINE = re.compile(r"(\d{1,7})[:-](.*)")  # of grep -n, where `-` marks lines around a match
_NO_ERRORS = re.compile(r"\s*2>\s*(?:&1|/dev/null)")
_RANGE = re.compile(r"(\d{1,7})(?:,(\d{1,7}|\$))?p")
_COUNT = re.compile(r"-(?:n ?)?(\d{1,7})")
_REST = re.compile(r"-n ?\+(\d{1,7})")
_FAILED = re.compile(r"<returncode>|(?:cat|sed|head|tail|nl|grep|bash|sh|/bin/\w+): ")
_NUMBER_AFTER_FLAG = re.compile(r"^(-[ABCm])\n\d+$", re.MULTILINE)
_MAX_COMMAND_CHARACTERS = 1_000
_NUMBERED = (["cat", "-n"], ["nl", "-ba"], ["nl", "-b", "a"])
_CHANGES_LINES = re.compile(r"-\w*[cohlLqrRnZ]|--")  # flags of a grep that prints other lines than its input


class Printed(NamedTuple):
    """The printed lines of a file; `is_whole` if the command prints all of them."""

    path: str
    lines: dict[int, str]
    is_whole: bool


def printed_lines(command: str, output: str) -> Printed | None:
    """The lines of a file in the output of a command; None for any other command or an error."""
    words = _words(_NO_ERRORS.sub("", command)) if len(command) <= _MAX_COMMAND_CHARACTERS else []
    folder = ""
    if words[:1] == ["cd"] and words[2:3] == ["&&"]:
        folder, words = words[1], words[3:]
    commands = [words[start + 1 : end] for start, end in pairwise([-1, *_places(words, "|"), len(words)])]
    if not all(commands) or len(commands[0]) < 2 or not output or _FAILED.match(output):
        return None
    if any(not word.strip("|;&<>()") for word in words if word != "|"):
        return None
    *first, path = commands[0]
    filters = commands[1:]
    if first in _NUMBERED:
        lines = _numbered(output, NUMBERED_LINE) if all(map(_keeps_lines, filters)) else {}
    elif first[0] == "grep":
        path, lines = _found(commands, output)
        filters = commands
    else:
        filters = filters if first == ["cat"] else [first, *filters]
        lines = _counted(output, filters)
    is_path = bool(path) and not path.startswith("-")
    return Printed(join(folder, path), lines, not filters) if lines and is_path else None


def _counted(output: str, filters: list[list[str]]) -> dict[int, str]:
    """The lines that filters leave of a whole file; empty if a filter is not known or more lines are printed."""
    start, end = 1, 1 << 30
    for name, *arguments in filters:
        given = " ".join(arguments)
        if name == "sed" and arguments[:1] == ["-n"] and (part := _RANGE.fullmatch(" ".join(arguments[1:]))):
            last = part[2] or part[1]
            start, end = start + int(part[1]) - 1, end if last == "$" else min(end, start + int(last) - 1)
        elif name == "head" and (part := _COUNT.fullmatch(given)):
            end = min(end, start + int(part[1]) - 1)
        elif name == "tail" and (part := _REST.fullmatch(given)):
            start += int(part[1]) - 1
        else:
            return {}
    texts = output.removesuffix("\n").split("\n")
    return dict(enumerate(texts, start)) if len(texts) <= end - start + 1 else {}


def _numbered(output: str, pattern: re.Pattern[str]) -> dict[int, str]:
    """The numbered lines at the start of an output, as long as the numbers increase; `--` stands for a gap."""
    lines: dict[int, str] = {}
    for line in output.split("\n"):
        if line == "--" and lines:
            continue
        match = pattern.fullmatch(line)
        if match is None or int(match[1]) <= next(reversed(lines), 0):
            break
        lines[int(match[1])] = match[2]
    return lines


def _found(commands: list[list[str]], output: str) -> tuple[str, dict[int, str]]:
    """The only file of a grep that numbers its lines, and the lines that it found; ('', {}) for another grep."""
    words = _NUMBER_AFTER_FLAG.sub(r"\1", "\n".join(commands[0][1:])).split("\n")
    flags = [word.replace("n", "") for word in words if word.startswith("-")]
    pattern_and_path = [word for word in words if not word.startswith("-")]
    numbers_lines = any("n" in word for word in words if word.startswith("-"))
    is_known = numbers_lines and all(map(_keeps_lines, [["grep", *flags], *commands[1:]]))
    if not is_known or len(pattern_and_path) != len(("pattern", "path")):
        return "", {}
    return pattern_and_path[1], _numbered(output, _FOUND_LINE)


def _keeps_lines(words: list[str]) -> bool:
    """Whether a filter passes lines on as they are."""
    if words[0] == "grep":
        return not any(_CHANGES_LINES.match(word) for word in words[1:])
    return words[0] in ("head", "tail") or (words[:2] == ["sed", "-n"] and _RANGE.fullmatch(words[-1]) is not None)


def _places(words: list[str], wanted: str) -> list[int]:
    return [place for place, word in enumerate(words) if word == wanted]


def _words(command: str) -> list[str]:
    """The words of a command, with its operators as words of their own."""
    parser = shlex.shlex(command.strip(), posix=True, punctuation_chars="|;&<>()")
    parser.whitespace_split, parser.commenters = True, ""
    try:
        return list(parser)
    except ValueError:  # an unclosed quote
        return []
