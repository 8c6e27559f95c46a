"""Shared by the three scripted agents: arguments, seeds, the choice of failing trajectories, atomic writes."""

import argparse
import importlib
import json
import os
import random
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

CHARACTERS_PER_TOKEN = 4
WRONG_EVERY = 8  # of every 8 trajectories, the 4th ends wrong on purpose
MARKER = ".scripted-agent"  # a folder with this file was made by these agents and may be replaced

# fmt: off
# documented, without side effects on import, available on every platform
LIBRARY = (
    "abc", "argparse", "ast", "asyncio", "base64", "bdb", "bisect", "bz2", "calendar", "cmd", "code", "codecs",
    "codeop", "collections", "collections.abc", "colorsys", "compileall", "concurrent.futures", "configparser",
    "contextlib", "copy", "copyreg", "csv", "dataclasses", "datetime", "decimal", "difflib", "dis", "doctest",
    "email", "email.charset", "email.generator", "email.header", "email.headerregistry", "email.message",
    "email.mime.base", "email.mime.text", "email.parser", "email.policy", "email.utils", "enum", "fileinput",
    "filecmp", "fnmatch", "fractions", "ftplib", "functools", "gettext", "glob", "graphlib", "gzip", "hashlib",
    "heapq", "hmac", "html", "html.parser", "http.client", "http.cookiejar", "http.cookies", "http.server",
    "imaplib", "importlib.abc", "importlib.machinery", "importlib.resources", "importlib.util", "inspect", "io",
    "ipaddress", "json", "json.decoder", "json.encoder", "keyword", "linecache", "locale", "logging",
    "logging.config", "logging.handlers", "lzma", "mailbox", "mimetypes", "modulefinder", "multiprocessing.pool",
    "multiprocessing.shared_memory", "netrc", "ntpath", "numbers", "operator", "optparse", "os", "pathlib", "pdb",
    "pickle", "pickletools", "pkgutil", "platform", "plistlib", "poplib", "posixpath", "pprint", "profile",
    "pstats", "py_compile", "pyclbr", "queue", "quopri", "random", "reprlib", "rlcompleter", "runpy", "sched",
    "secrets", "selectors", "shelve", "shlex", "shutil", "smtplib", "socket", "socketserver", "sqlite3", "ssl",
    "stat", "statistics", "string", "stringprep", "struct", "subprocess", "symtable", "sysconfig", "tabnanny",
    "tarfile", "tempfile", "textwrap", "threading", "timeit", "token", "tokenize", "tomllib", "trace", "traceback",
    "tracemalloc", "types", "typing", "unittest", "unittest.case", "unittest.mock", "urllib.error", "urllib.parse",
    "urllib.request", "urllib.robotparser", "uuid", "venv", "warnings", "wave", "weakref", "webbrowser",
    "wsgiref.handlers", "wsgiref.headers", "wsgiref.util", "wsgiref.validate", "xml.dom", "xml.dom.minidom",
    "xml.etree.ElementTree", "xml.sax.handler", "xml.sax.saxutils", "xmlrpc.client", "zipapp", "zipfile",
    "zipimport",
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line options of an agent."""

    out: Path
    count: int
    seed: int
    length_tokens: int


def parse_options(description: str) -> Options:
    """Parse `--out DIR --count N --seed S --length-tokens L`; exit with 2 for an invalid value."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="output folder; the agent writes a subfolder")
    parser.add_argument("--count", type=int, default=12, help="number of trajectories (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="random seed; equal arguments give equal bytes (default 0)")
    parser.add_argument(
        "--length-tokens", type=int, default=4096, help="target size of one context, characters / 4 (default 4096)"
    )
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count must be at least 1, got {arguments.count}")
    if arguments.length_tokens < 256:
        parser.error(f"--length-tokens must be at least 256, got {arguments.length_tokens}")
    return Options(**vars(arguments))


def rng_for(seed: int, *names: object) -> random.Random:
    """An independent generator for each purpose, so that a larger --count only appends rows."""
    return random.Random(":".join(str(part) for part in (seed, *names)))


def ends_wrong(index: int) -> bool:
    """Whether trajectory `index` (0-based) ends wrong on purpose."""
    return index % WRONG_EVERY == WRONG_EVERY // 2 - 1


def estimate_tokens(text: str) -> int:
    """Estimate tokens as characters / 4, without a tokenizer."""
    return len(text) // CHARACTERS_PER_TOKEN


def import_library() -> dict[str, ModuleType]:
    """The modules of LIBRARY that this Python has, in the order of LIBRARY."""
    modules = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARY:
            try:
                modules[name] = importlib.import_module(name)
            except ImportError:  # for example, a Python built without ssl or lzma
                continue
    return modules


@contextmanager
def published_folder(path: Path, options: Options) -> Iterator[Path]:
    """A temporary folder that is renamed to `path` when the block ends without an exception.

    An existing folder is replaced if one of these agents made it; otherwise the process exits with 2.
    """
    if path.exists() and not (path / MARKER).is_file():
        print(f"error: {path} exists and was not made by a scripted agent; choose another --out", file=sys.stderr)
        raise SystemExit(2)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        arguments = {"count": options.count, "seed": options.seed, "length_tokens": options.length_tokens}
        write_text(temporary / MARKER, json.dumps(arguments) + "\n")
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 without newline conversion, and sync the file to disk."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def report(agent: str, contexts_tokens: list[int]) -> None:
    """Print a summary as one JSON line."""
    count = len(contexts_tokens)
    summary = {
        "agent": agent,
        "trajectories": count,
        "wrong_on_purpose": sum(ends_wrong(index) for index in range(count)),
        "mean_context_tokens": sum(contexts_tokens) // count,
        "max_context_tokens": max(contexts_tokens),
    }
    print(json.dumps(summary))
