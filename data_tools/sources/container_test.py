"""Testing an answer with a command in a container that has no network."""

import re
import shlex
import shutil
import subprocess
import uuid
from dataclasses import dataclass

from acc_megatron.errors import ConfigError, Dropped, EnvironmentProblem

ENGINE_FAILED = 125  # exit code of docker and podman themselves; every other code is the command's
_SAFE_NAME = re.compile(r"[\w.-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerTest:
    """A test command: it runs in a fresh container of `image` and reads the answer from its standard input.

    `{instance_id}` in the image and the command is replaced by the run's. Exit code 0 within the time limit passes.
    """

    image: str
    command: tuple[str, ...]
    engine: str = "docker"
    timeout_seconds: float = 1800.0


def container_test(image: str | None, command: str | None) -> ContainerTest | None:
    """The test that --swe-container and --swe-test-command ask for; None without both.

    The command is split as a shell splits it. Raises ConfigError if only one is given, and EnvironmentProblem if
    neither docker nor podman is on PATH, so that the user learns of it before paying a teacher.
    """
    if image is None and command is None:
        return None
    if not image or not command:
        raise ConfigError("--swe-container and --swe-test-command must be given together")
    engine = next((name for name in ("docker", "podman") if shutil.which(name)), None)
    if engine is None:
        raise EnvironmentProblem("--swe-container needs docker or podman, and neither is on PATH: install one of them")
    return ContainerTest(image=image, command=tuple(shlex.split(command)), engine=engine)


def run_container_test(test: ContainerTest, instance_id: str, answer: str) -> None:
    """Run the test on an answer. Raises Dropped: tests_failed, tests_timeout, or no_instance for an unsafe id.

    Raises EnvironmentProblem if the engine is not on PATH or cannot run the image, which says nothing about the answer.
    """
    if not _SAFE_NAME.fullmatch(instance_id):
        raise Dropped("no_instance", f"{instance_id!r:.100} cannot be an instance id: only letters, digits, '_.-'")
    engine = shutil.which(test.engine)
    if engine is None:
        raise EnvironmentProblem(f"{test.engine!r} is not on PATH")
    image, *command = (part.replace("{instance_id}", instance_id) for part in (test.image, *test.command))
    name = f"acc-test-{uuid.uuid4().hex}"
    arguments = [engine, "run", "--rm", "--interactive", "--network=none", f"--name={name}", image, *command]
    try:
        done = subprocess.run(
            arguments, input=answer.encode() + b"\n", capture_output=True, timeout=test.timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        subprocess.run([engine, "kill", name], capture_output=True, timeout=60, check=False)
        raise Dropped("tests_timeout", f"the test did not end within {test.timeout_seconds:.0f} s") from None
    stderr = done.stderr[-300:].decode(errors="replace").strip()
    if done.returncode == ENGINE_FAILED:
        raise EnvironmentProblem(f"{test.engine} could not run a container of {image}: {stderr}")
    if done.returncode:
        raise Dropped("tests_failed", f"exit code {done.returncode}: {stderr}")
