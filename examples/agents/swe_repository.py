"""The repository of an agent: copied modules, a test script and its runs, and patches in the format of git."""

import difflib
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from common import estimate_tokens
from swe_checks import SUBJECTS, Subject
from swe_faults import Fault

PACKAGE = "toolbox"
ROOT = "/testbed"
TEST = f"tests/test_{PACKAGE}.py"
TRIAL_CPU_SECONDS = 2  # faults that run longer are not used
RUN_CPU_SECONDS = 60
LIBRARY = Path(sysconfig.get_path("stdlib"))

TEST_HEAD = '''"""Checks of the package; run as a script."""
import os.path
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
{imports}


def check(compute, expected):
    try:
        got = compute()
    except Exception as error:
        raise AssertionError("raised %s: %s" % (type(error).__name__, error)) from None
    if got != expected:
        raise AssertionError("got %r" % (got,))

'''
TEST_TAIL = """

if __name__ == "__main__":
    failed = 0
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for name, test in tests:
        try:
            test()
        except AssertionError as error:
            failed += 1
            print("FAILED", name + ":", error)
        else:
            print("PASSED", name)
    print(failed, "failed,", len(tests) - failed, "passed")
    sys.exit(failed > 0)
"""
PROBE = """
import importlib, json, sys
def record(name, module, compute):
    values, lines = seen.setdefault(name, ([], set()))
    def note(frame, event, argument):
        lines.add(frame.f_lineno)
        return note
    def trace(frame, event, argument):
        return note if frame.f_globals is vars(module) else None
    sys.settrace(trace)
    try:
        value = compute()
    except Exception:
        value = None
    sys.settrace(None)
    values.append(None if value is None else repr(value))
seen = {}
"""


@dataclass(frozen=True, slots=True)
class Known:
    """Results of the checks of a module: the repr of each value (None if the check fails), the executed lines, and
    whether the checks detect a fault, for the faults tried so far."""

    values: tuple[str | None, ...]
    lines: frozenset[int]
    is_detected: dict[Fault, bool] = field(default_factory=dict)


def run_python(script: str, folder: Path, *, cpu_seconds: int) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, isolated from the environment, user site and site packages.

    Like `python -I`, but with a fixed hash seed, so that the order of sets is reproducible. CPU time is limited, not
    wall time, so that the load of the machine has no effect.
    """
    command = [sys.executable, "-s", "-P", "-S", "-B", script]
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))

    return subprocess.run(
        command, cwd=folder, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False
    )


def probe() -> dict[str, Known]:
    """Run all checks once on the installed standard library; returns the results by module name."""
    lines = [PROBE]
    for subject in available_subjects():
        lines.append(f"{subject.alias} = importlib.import_module({subject.module!r})")
        lines += [f"record({subject.module!r}, {subject.alias}, lambda: {check})" for check in subject.checks]
    lines.append("print(json.dumps({name: (values, sorted(lines)) for name, (values, lines) in seen.items()}))")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "probe.py").write_text("\n".join(lines), encoding="utf-8")
        done = run_python("probe.py", Path(folder), cpu_seconds=RUN_CPU_SECONDS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: Known(tuple(values), frozenset(numbers)) for name, (values, numbers) in found.items()}


def available_subjects() -> list[Subject]:
    """The subjects whose files exist in this Python."""
    return [subject for subject in SUBJECTS if all((LIBRARY / file).is_file() for file in subject.files)]


@cache
def library_text(file: str) -> str:
    """The text of a file of the standard library."""
    return (LIBRARY / file).read_bytes().decode("utf-8")


def file_tokens(file: str) -> int:
    """The estimated size of a file of the standard library."""
    return estimate_tokens(library_text(file))


@dataclass(frozen=True, slots=True)
class TestRun:
    """The result of a run of the test script."""

    output: str
    passed: bool
    failures: dict[str, str]  # test name -> message
    broken: bool  # the script did not finish, or its output is not reproducible


class Repository:
    """A folder with the copied package and its test script; `files` maps relative paths to texts."""

    def __init__(self, folder: Path, subjects: list[Subject], tested: list[Subject], known: dict[str, Known]) -> None:
        self.folder = folder
        self.files = {f"{PACKAGE}/__init__.py": f'"""{PACKAGE}: small tools."""\n', TEST: test_script(tested, known)}
        for subject in subjects:
            for file in subject.files:
                self.files[f"{PACKAGE}/{file}"] = library_text(file)
        for path, text in self.files.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.files[path] = text
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())

    def test(self, *, cpu_seconds: int = RUN_CPU_SECONDS) -> TestRun:
        """Run the test script; real paths are replaced by paths in ROOT."""
        done = run_python(TEST, self.folder, cpu_seconds=cpu_seconds)
        output = (done.stdout + done.stderr).replace(os.path.realpath(self.folder), ROOT)
        output += "Killed\n" if done.returncode < 0 else ""
        failures = dict(re.findall(r"^FAILED (\w+): (.*)", output, flags=re.MULTILINE))
        broken = done.returncode not in (0, 1) or "Traceback" in output or " at 0x" in output
        return TestRun(output, done.returncode == 0, failures, broken)


@dataclass(frozen=True)
class Check:
    """A test function: its name, its expression and the expected value."""

    name: str
    subject: Subject
    expression: str
    expected: str

    @cached_property
    def source(self) -> str:
        """The source of the test function."""
        return f"\ndef {self.name}():\n    check(lambda: {self.expression}, {self.expected})\n"


def checks_of(subject: Subject, known: dict[str, Known]) -> list[Check]:
    """The checks that the unchanged module passes."""
    name = subject.module.replace(".", "_").strip("_")
    pairs = zip(subject.checks, known[subject.module].values, strict=True)
    return [
        Check(f"test_{name}_{number}", subject, expression, value)
        for number, (expression, value) in enumerate(pairs, 1)
        if value is not None
    ]


def import_of(subject: Subject) -> str:
    """The import statement of a copied module."""
    package, _, name = f"{PACKAGE}.{subject.module}".rpartition(".")
    return f"from {package} import {name}"


def test_script(subjects: list[Subject], known: dict[str, Known]) -> str:
    """A test script for these modules, without dependencies."""
    imports = "\n".join(import_of(subject) for subject in subjects)
    tests = "\n".join(check.source for subject in subjects for check in checks_of(subject, known))
    return TEST_HEAD.replace("{imports}", imports) + tests + TEST_TAIL


def blob_hash(text: str) -> str:
    """The SHA-1 that git computes for a file."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def commit_hash(files: dict[str, str]) -> str:
    """A replacement for a commit hash: the SHA-1 of all paths and their hashes."""
    listing = "".join(f"{path} {blob_hash(text)}\n" for path, text in sorted(files.items()))
    return hashlib.sha1(listing.encode()).hexdigest()


def git_patch(before: dict[str, str], after: dict[str, str]) -> str:
    """The unified diff between two states of the files, in the format of git."""
    parts = []
    for path in sorted(before):
        old, new = before[path], after[path]
        if old == new:
            continue
        parts.append(f"diff --git a/{path} b/{path}\nindex {blob_hash(old)[:7]}..{blob_hash(new)[:7]} 100644\n")
        old_lines, new_lines = (re.findall(r"[^\n]*\n|[^\n]+\Z", text) for text in (old, new))
        for line in difflib.unified_diff(old_lines, new_lines, f"a/{path}", f"b/{path}"):
            parts.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(parts)
