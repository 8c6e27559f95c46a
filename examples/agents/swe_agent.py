"""A scripted SWE agent: repairs injected faults in copies of standard-library modules and logs `.traj` files.

    python examples/agents/swe_agent.py --out DIR --count 12 --seed 0 --length-tokens 8192

Writes DIR/swe/<instance_id>.traj and DIR/swe/instances.json. The agent knows where the two faults are; the opened
files, the edits and the test runs are real. `--length-tokens` is the size of the two faulty files and of all other
opened files (characters / 4); the minimum is about 4,000.
"""

import json
import random
import tempfile
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from common import Options, ends_wrong, parse_options, published_folder, report, rng_for, write_text
from swe_checks import Subject
from swe_faults import Fault, faults, replace_line
from swe_repository import (
    PACKAGE,
    ROOT,
    RUN_CPU_SECONDS,
    TEST,
    TRIAL_CPU_SECONDS,
    Check,
    Known,
    Repository,
    available_subjects,
    checks_of,
    commit_hash,
    file_tokens,
    git_patch,
    import_of,
    probe,
)

WINDOW = 100
MAX_TRIES = 40
UPDATED = (
    "File updated. Please review the changes and make sure they are correct (correct indentation, no duplicate "
    "lines, etc). Edit the file again if necessary.\n"
)
SYSTEM = (
    "SETTING: You are an autonomous programmer, and you're working directly in the command line with a special "
    f"interface.\n\nThe special interface consists of a file editor that shows you {WINDOW} lines of a file at a time."
)


@dataclass(slots=True)
class Shell:
    """The commands of SWE-agent on a repository; every command is logged."""

    repository: Repository
    steps: list[dict[str, str]] = field(default_factory=list)
    open_file: str = "n/a"

    def find_file(self, thought: str, name: str) -> None:
        """Find a file by name."""
        hits = [path for path in sorted(self.repository.files) if path.endswith(f"/{name}")]
        listing = "".join(f"{ROOT}/{path}\n" for path in hits)
        self._log(thought, f'find_file "{name}"', f'Found {len(hits)} matches for "{name}" in {ROOT}:\n{listing}')

    def search_dir(self, thought: str, term: str) -> None:
        """Search a term in all files."""
        counts = {path: text.count(term) for path, text in sorted(self.repository.files.items()) if term in text}
        listing = "".join(f"{ROOT}/{path} ({count} matches)\n" for path, count in counts.items())
        head = f'Found {sum(counts.values())} matches for "{term}" in {ROOT}:\n'
        self._log(thought, f'search_dir "{term}"', f'{head}{listing}End of matches for "{term}" in {ROOT}\n')

    def open(self, thought: str, path: str, line: int) -> None:
        """Open a file and show a window of it."""
        self.open_file = f"{ROOT}/{path}"
        self._log(thought, f"open {path} {line}", self._window(path, line))

    def edit(self, thought: str, path: str, line: int, new: str) -> None:
        """Replace one line of the open file."""
        self.repository.write(path, replace_line(self.repository.files[path], line, new))
        self._log(thought, f"edit {line}:{line}\n{new}\nend_of_edit", self._window(path, line) + UPDATED)

    def test(self, thought: str, *, cpu_seconds: int = RUN_CPU_SECONDS) -> bool:
        """Run the test script; return whether all tests passed."""
        run = self.repository.test(cpu_seconds=cpu_seconds)
        self._log(thought, f"python {TEST}", run.output)
        return run.passed

    def submit(self, thought: str, patch: str) -> None:
        """End the trajectory with the patch."""
        self._log(thought, "submit", f"\n{patch}")

    def _window(self, path: str, line: int) -> str:
        """The lines around `line`, which is one sixth below the top of the window, as in SWE-agent's `open`."""
        lines = self.repository.files[path].removesuffix("\n").split("\n")
        start = max(0, min(line - WINDOW // 6, len(lines) - WINDOW))
        shown = lines[start : start + WINDOW]
        below = len(lines) - start - len(shown)
        parts = [f"[File: {ROOT}/{path} ({len(lines)} lines total)]"]
        parts += [f"({start} more lines above)"] if start else []
        parts += [f"{number}:{text}" for number, text in enumerate(shown, start + 1)]
        parts += [f"({below} more lines below)"] if below else []
        return "\n".join(parts) + "\n"

    def _log(self, thought: str, action: str, observation: str) -> None:
        state = json.dumps({"open_file": self.open_file, "working_dir": ROOT}) + "\n"
        response = f"{thought}\n\n```\n{action}\n```"
        step = {"action": f"{action}\n", "observation": observation, "response": response}
        self.steps.append(step | {"state": state, "thought": f"{thought}\n\n"})


@dataclass(frozen=True, slots=True)
class Task:
    """A repository with two faults by path, other files to open, the issue, and failing and passing tests."""

    instance_id: str
    faults: dict[str, Fault]
    others: tuple[str, ...]
    statement: str
    failing: tuple[str, ...]
    passing: tuple[str, ...]


def choose_subjects(rng: random.Random, budget_tokens: int) -> tuple[list[Subject], list[Subject], list[Subject]]:
    """Two modules to break, at least one to open until the budget is full, and up to two that are not opened."""
    subjects = available_subjects()
    sizes = {subject.module: file_tokens(subject.files[0]) for subject in subjects}
    pairs = [list(pair) for pair in combinations(subjects, 2)]
    rng.shuffle(pairs)

    def misses(pair: list[Subject]) -> float:
        share = sum(sizes[subject.module] for subject in pair) / budget_tokens
        return max(0.0, 0.2 - share, share - 0.75)

    broken = rng.choice(sorted(pairs, key=misses)[:6])
    rest = [subject for subject in subjects if subject not in broken]
    rng.shuffle(rest)
    left = budget_tokens - sum(sizes[subject.module] for subject in broken)
    opened: list[Subject] = []
    for subject in rest:
        if sizes[subject.module] <= left:
            opened.append(subject)
            left -= sizes[subject.module]
    opened = opened or [min(rest, key=lambda subject: sizes[subject.module])]
    unopened = [subject for subject in rest if subject not in opened and sizes[subject.module] <= budget_tokens // 2]
    return broken, opened, unopened[:2]


def find_fault(rng: random.Random, repository: Repository, subject: Subject, known: Known) -> Fault | None:
    """A fault in one module that its checks detect while the test script still runs, or None."""
    path = f"{PACKAGE}/{subject.files[0]}"
    original = repository.files[path]
    candidates = faults(original, known.lines)
    for fault in rng.sample(candidates, min(len(candidates), MAX_TRIES)):
        if fault not in known.is_detected:
            repository.write(path, fault.inject(original))
            run = repository.test(cpu_seconds=TRIAL_CPU_SECONDS)
            repository.write(path, original)
            known.is_detected[fault] = bool(run.failures) and not run.broken
        if known.is_detected[fault]:
            return fault
    return None


def make_task(rng: random.Random, number: int, folder: Path, known: dict[str, Known], budget_tokens: int) -> tuple[
    Task, Repository
]:  # fmt: skip
    """Create a repository and inject a fault into two of its files."""
    broken, opened, unopened = choose_subjects(rng, budget_tokens)
    repository = Repository(folder, broken + opened + unopened, broken, known)
    found: dict[str, Fault] = {}
    for subject in broken:
        fault = find_fault(rng, repository, subject, known[subject.module])
        assert fault is not None, subject.module
        found[f"{PACKAGE}/{subject.files[0]}"] = fault
    for path, fault in found.items():
        repository.write(path, fault.inject(repository.files[path]))
    run = repository.test()
    assert not run.broken, run.output
    checks = [check for subject in broken for check in checks_of(subject, known)]
    failing = [check.name for check in checks if check.name in run.failures]
    return (
        Task(
            instance_id=f"stdlib__{PACKAGE}-{number}",
            faults=found,
            others=tuple(f"{PACKAGE}/{subject.files[0]}" for subject in opened),
            statement=problem_statement(broken, checks, run.failures),
            failing=tuple(failing),
            passing=tuple(check.name for check in checks if check.name not in failing),
        ),
        repository,
    )


def problem_statement(broken: list[Subject], checks: list[Check], failures: dict[str, str]) -> str:
    """The text of an issue that shows one failing expression per module."""
    names = " and ".join(f"`{PACKAGE}.{subject.module}`" for subject in broken)
    parts = [f"Wrong results from {names}\n\nTwo of our modules give wrong results since the last change.\n"]
    for subject in broken:
        failed = [check for check in checks if check.subject is subject and check.name in failures]
        check = min(failed, key=lambda check: len(check.expression + check.expected))
        code = f"```python\n{import_of(subject)}\n\n{check.expression}\n```"
        parts.append(f"{code}\n\nExpected `{check.expected}`, but {failures[check.name]}\n")
    parts.append(f"`python {TEST}` fails in {len(failures)} tests. Please repair both modules.\n")
    return "\n".join(parts)


def play(task: Task, repository: Repository, rng: random.Random, *, wrong: bool) -> tuple[Shell, str, bool]:
    """Run the agent; if `wrong`, it stops after the first fault. Returns its patch and whether all tests pass."""
    shell = Shell(repository)
    before = dict(repository.files)
    resolved = shell.test("First I run the test script to see what fails.")
    half = (len(task.others) + 1) // 2
    for number, (path, fault) in enumerate(task.faults.items()):
        for other in task.others[:half] if number == 0 else task.others[half:]:
            line = rng.randrange(1, before[other].count("\n") + 1)
            shell.open(f"{Path(other).name} may be involved, so I look at how it works.", other, line)
        if wrong and number == 1:
            break
        resolved = repair(shell, path, fault, rng)
    patch = git_patch(before, repository.files)
    end = "All tests pass, so I submit the changes."
    shell.submit("What still fails seems to have another cause, so I submit." if wrong else end, patch)
    assert resolved != wrong, task.instance_id
    return shell, patch, resolved


def repair(shell: Shell, path: str, fault: Fault, rng: random.Random) -> bool:
    """Fix one faulty line, sometimes after a useless attempt; return whether all tests pass."""
    if rng.random() < 0.5:
        shell.find_file(f"The failing values come from {Path(path).name}. Where is it?", Path(path).name)
    else:
        shell.search_dir(f"The failing values pass through {fault.function}. Where is it?", f"def {fault.function}(")
    shell.open(f"I open the file at {fault.function}.", path, fault.line)
    if rng.random() < 0.4 and fault.attempt not in (fault.right, fault.wrong):
        shell.edit(f"Line {fault.line} looks wrong. I try a small change.", path, fault.line, fault.attempt)
        shell.test("Does that help?", cpu_seconds=TRIAL_CPU_SECONDS)
    shell.edit(f"In {fault.function}, line {fault.line}: {fault.thought}.", path, fault.line, fault.right)
    return shell.test("I run the tests again.")


def traj_of(task: Task, shell: Shell, patch: str) -> dict[str, Any]:
    """The trajectory in the older layout of SWE-agent."""
    issue = "We're currently solving the following issue within our repository. Here's the issue text:\nISSUE:\n"
    history = [
        {"role": "system", "content": SYSTEM, "agent": "primary"},
        {"role": "user", "content": issue + task.statement, "agent": "primary"},
    ]
    for step in shell.steps:
        said = {"role": "assistant", "content": step["response"], "thought": step["thought"], "action": step["action"]}
        state = json.loads(step["state"])
        prompt = f"\n(Open file: {state['open_file']})\n(Current directory: {ROOT})\nbash-$"
        history.append(said | {"agent": "primary"})
        history.append({"role": "user", "content": step["observation"] + prompt, "agent": "primary"})
    stats = {"total_cost": 0, "instance_cost": 0, "tokens_sent": 0, "tokens_received": 0, "api_calls": len(shell.steps)}
    return {
        "environment": task.instance_id,
        "trajectory": shell.steps,
        "history": history[:-1],
        "info": {"exit_status": "submitted", "submission": f"\n{patch}", "model_stats": stats},
    }


def instance_of(task: Task, files: dict[str, str], *, resolved: bool) -> dict[str, Any]:
    """The SWE-bench row of an instance, with the files at the base commit."""
    fixed = dict(files)
    for path, fault in task.faults.items():
        fixed[path] = replace_line(files[path], fault.line, fault.right)
    return {
        "repo": f"stdlib/{PACKAGE}",
        "instance_id": task.instance_id,
        "base_commit": commit_hash(files),
        "problem_statement": task.statement,
        "patch": git_patch(files, fixed),
        "files_at_base_commit": files,
        "FAIL_TO_PASS": [f"{TEST}::{name}" for name in task.failing],
        "PASS_TO_PASS": [f"{TEST}::{name}" for name in task.passing],
        "resolved": resolved,
    }


def write_runs(folder: Path, options: Options) -> list[int]:
    """Create and run all tasks; return the size of each context in tokens."""
    known = probe()
    instances: list[dict[str, Any]] = []
    sizes: list[int] = []
    for index in range(options.count):
        rng = rng_for(options.seed, "swe", index)
        with tempfile.TemporaryDirectory() as testbed:
            task, repository = make_task(rng, index + 1, Path(testbed), known, options.length_tokens)
            base = dict(repository.files)
            shell, patch, resolved = play(task, repository, rng, wrong=ends_wrong(index))
        text = json.dumps(traj_of(task, shell, patch), indent=2, ensure_ascii=False)
        write_text(folder / f"{task.instance_id}.traj", text + "\n")
        instances.append(instance_of(task, base, resolved=resolved))
        sizes.append(sum(len(base[path]) for path in (*task.faults, *task.others)) // 4)
    write_text(folder / "instances.json", json.dumps(instances, indent=2, ensure_ascii=False) + "\n")
    return sizes


def main() -> None:
    """Write the trajectories and instances."""
    options = parse_options("Run a scripted SWE agent on faulty copies of standard library modules.")
    with published_folder(options.out / "swe", options) as folder:
        sizes = write_runs(folder, options)
    report("swe", sizes)


if __name__ == "__main__":
    main()
