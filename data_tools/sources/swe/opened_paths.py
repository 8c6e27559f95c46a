"""The files of the repository that a SWE agent opened, as labels; they are never opened here.

A file counts as opened if an observation shows a part of it, if a file tool views it, or if a shell command prints it
(cat, head, sed -n, ...). Edits and searches do not count.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from posixpath import join, normpath

from acc_megatron.data_tools.sources.formats.log_format import Step

_WINDOWS = (
    re.compile(r"\[File: (.{1,1000}?) \(\d+ lines total\)\]"),
    re.compile(r"result of running `cat -n` on (\S{1,1000}?):\n"),
)
_PRINTERS = {"cat", "head", "tail", "less", "more", "nl", "sed", "open", "view", "bat", "batcat"}
VIEW_TOOLS = {"read", "read_file", "view_file", "open_file", "view", "open", "cat"}
_PATH_ARGUMENTS = ("path", "file_path", "filename", "file", "target_file")
_SEPARATORS = re.compile(r"&&|\|\||[;\n|]")
_PATH = re.compile(r"[\w./@+-]*[\w@+-]\.\w{1,12}|[\w./@+-]+/[\w.@+-]+")
_OUTSIDE = {"tmp", "usr", "etc", "opt", "root", "proc", "dev", "bin", "lib", "var", "sys"}
_MAX_COMMAND_CHARACTERS = 20_000


def opened_files(steps: Iterable[Step]) -> list[str]:
    """Repository-relative paths in the order of the steps, each once."""
    found = (in_repository(path) for step in steps for path in _opened(step))
    return list(dict.fromkeys(path for path in found if path))


def in_repository(path: str) -> str:
    """A path without the folder of the checkout: `/testbed/a.py`, `/owner__repo/a.py`, `/workspace/x/a.py`.

    '' for a path of the operating system.
    """
    parts = normpath(path).split("/")
    if not path.startswith("/"):
        return "/".join(parts)
    if parts[1:2] and parts[1] in _OUTSIDE:
        return ""
    return "/".join(parts[3 if parts[1] in ("workspace", "home") else 2 :])


def _opened(step: Step) -> Iterator[str]:
    matches = [match for pattern in _WINDOWS for match in pattern.finditer(step.output)]
    yield from (match[1] for match in sorted(matches, key=lambda match: match.start()))
    path = next((step.arguments[key] for key in _PATH_ARGUMENTS if isinstance(step.arguments.get(key), str)), "")
    command = step.argument("command", "cmd", "input")
    if path and (step.tool.lower() in VIEW_TOOLS or command == "view"):
        yield path
    elif command and not path:
        yield from _printed(command[:_MAX_COMMAND_CHARACTERS])


def _printed(command: str) -> Iterator[str]:
    """Files that a shell command prints, relative to the folder of a `cd` before it."""
    folder = ""
    for part in _SEPARATORS.split(command):
        if "<<" in part:  # a here-document follows
            return
        words = _words(part)
        if words[:1] == ["cd"] and len(words) > 1:
            folder = join(folder, words[1])
        elif words and words[0] in _PRINTERS and ">" not in part and "-i" not in words:
            yield from (join(folder, word) for word in words[1:] if _PATH.fullmatch(word))


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part)
    except ValueError:  # an unclosed quote
        return part.split()
