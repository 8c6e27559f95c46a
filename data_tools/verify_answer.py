"""Does an answer reach the ground truth? One verifier for each kind of agent.

- search: an alias-tolerant match of the answer with the truth (sources/answer_match.py);
- sql: the gold query runs read-only here and the answer's rows are its result: as a multiset, or in order where the
  query orders; 1 equals 1.0; where query or database are not at hand, the recorded rows stand for the result;
- swe: the answer's patch applies to the given files, and passes the test command where one is given.
"""

import re
import shlex
import shutil
import subprocess
import uuid
from dataclasses import dataclass

from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Triple
from acc_megatron.data_tools.sources.answer_match import matches
from acc_megatron.data_tools.sources.sql import same_result
from acc_megatron.data_tools.sources.table_names import has_order_by
from acc_megatron.data_tools.sqlite_readonly import QueryError, Value, open_readonly
from acc_megatron.data_tools.table_text import rows_text
from acc_megatron.data_tools.unified_diff import PatchError, apply_patch
from acc_megatron.errors import ConfigError, EnvironmentProblem

ENGINE_FAILED = 125  # of docker and podman: no daemon, no image, no such option; any other code is the command's
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_DIFF = re.compile(r"^(diff --git |--- \S)", re.MULTILINE)
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,300})")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?")
_SAFE_NAME = re.compile(r"[\w.-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweTest:
    """A test of a patch: `command` runs in a fresh container of `image`, without network, the patch on its input.

    `{instance_id}` in either is replaced by the run's. The test passes when the command ends with 0 in time.
    """

    image: str
    command: tuple[str, ...]
    engine: str = "docker"
    timeout_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks answers to compiled questions, each by its own agent's rule."""

    resources: Resources
    swe_test: SweTest | None = None

    def check(self, triple: Triple, answer: str) -> None:
        """Return for an answer that reaches the truth; raise Dropped with the reason for any other."""
        if triple.agent == "search":
            found = triple.settings.get("notes", {}).get("aliases")
            aliases = [alias for alias in found if isinstance(alias, str)] if isinstance(found, list) else []
            if not any(matches(answer, truth) for truth in (triple.ground_truth, *aliases)):
                raise Dropped("wrong_answer", f"expected {triple.ground_truth!r:.200}, got {answer!r:.200}")
        elif triple.agent == "sql":
            self._check_rows(triple, answer)
        elif triple.agent == "swe":
            self._check_patch(triple, answer)
        else:
            raise Dropped("no_verifier", f"no rule says what answers {triple.agent!r} questions")

    def _check_rows(self, triple: Triple, answer: str) -> None:
        notes = triple.settings.get("notes", {})
        gold_sql, path = notes.get("gold_sql"), self.resources.database(str(notes.get("database")))
        truth = triple.ground_truth
        if isinstance(gold_sql, str) and path is not None:
            try:
                with open_readonly(path) as database:
                    truth = rows_text(database.query(gold_sql).rows)
            except QueryError as error:
                raise Dropped(f"database_{error.reason}", error.detail) from None
        ordered = isinstance(gold_sql, str) and has_order_by(gold_sql)
        found, expected = answer_rows(answer), answer_rows(truth)
        if not same_result(found, expected, ordered=ordered):
            raise Dropped("wrong_answer", f"{len(found)} rows are not the {len(expected)} of the gold query")

    def _check_patch(self, triple: Triple, answer: str) -> None:
        patch = patch_of(answer)
        files = {piece.id: piece.text for piece in triple.context}
        try:
            changed = apply_patch(patch, files)
        except PatchError as error:
            raise Dropped(f"patch_{error.reason}", error.detail) from None
        if all(text == files.get(path) for path, text in changed.items()):
            raise Dropped("patch_changes_nothing", f"{len(changed)} files stay as they are")
        if self.swe_test:
            run_swe_test(self.swe_test, str(triple.settings.get("notes", {}).get("instance_id")), patch)


def swe_test(image: str | None, command: str | None) -> SweTest | None:
    """The test that two options ask for, the command split as a shell would; None without either.

    Raises EnvironmentProblem where neither docker nor podman is on PATH: before a teacher is paid, not after.
    """
    if image is None and command is None:
        return None
    if not image or not command:
        raise ConfigError("give --swe-container and --swe-test-command together")
    engine = next((name for name in ("docker", "podman") if shutil.which(name)), None)
    if engine is None:
        raise EnvironmentProblem("--swe-container needs docker or podman, and neither is on PATH: install one of them")
    return SweTest(image=image, command=tuple(shlex.split(command)), engine=engine)


def run_swe_test(test: SweTest, instance_id: str, patch: str) -> None:
    """Run the test command on a patch; Dropped('tests_failed' or 'tests_timeout') unless it ends with 0.

    Raises EnvironmentProblem when the container engine is not on this machine, or cannot run the image: that says
    nothing about the patch.
    """
    if not _SAFE_NAME.fullmatch(instance_id):
        raise Dropped("no_instance", f"{instance_id!r:.100} is no name of an instance")
    engine = shutil.which(test.engine)
    if engine is None:
        raise EnvironmentProblem(f"no {test.engine!r} on PATH")
    image, *command = (part.replace("{instance_id}", instance_id) for part in (test.image, *test.command))
    name = f"acc-test-{uuid.uuid4().hex}"
    arguments = [engine, "run", "--rm", "--interactive", "--network=none", f"--name={name}", image, *command]
    try:
        done = subprocess.run(
            arguments, input=patch.encode() + b"\n", capture_output=True, timeout=test.timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        subprocess.run([engine, "kill", name], capture_output=True, timeout=60, check=False)
        raise Dropped("tests_timeout", f"no result after {test.timeout_seconds:.0f} s") from None
    said = done.stderr[-300:].decode(errors="replace").strip()
    if done.returncode == ENGINE_FAILED:
        raise EnvironmentProblem(f"{test.engine} could not run a container of {image}: {said}")
    if done.returncode:
        raise Dropped("tests_failed", f"exit code {done.returncode}: {said}")


def patch_of(answer: str) -> str:
    """The unified diff in an answer: inside its code fence, or from the first line that opens one."""
    for block in _FENCED.findall(answer):
        if _DIFF.search(block):
            answer = block
            break
    start = _DIFF.search(answer)
    return answer[start.start() :] if start else ""


def answer_rows(answer: str) -> list[list[Value]]:
    """The rows of an answer in the form that the question asks for; a code fence and outer bars are tolerated."""
    block = _FENCED.search(answer)
    lines = [line.strip() for line in (block[1] if block else answer).strip().splitlines()]
    lines = [line for line in lines if line]
    if lines == ["(no rows)"]:
        return []
    return [[_value(cell) for cell in _cells(line)] for line in lines]


def _cells(line: str) -> list[str]:
    if line.startswith("| ") and line.endswith(" |"):
        line = line[2:-2]
    return re.split(r"(?<!\\)\|", line)


def _value(cell: str) -> Value:
    """NULL, a number, or text: texts that look like numbers compare as numbers on both sides."""
    cell = cell.strip()
    if cell == "NULL":
        return None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else cell
