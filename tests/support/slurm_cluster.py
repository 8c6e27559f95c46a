"""A real SLURM cluster of two virtual nodes on this machine, and the launcher in an environment of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commands import ROOT, free_port, run_command

LAUNCHER = ROOT / ".venv-launch" / "bin" / "acc-megatron"
SUPPORT = Path(__file__).parent


def need_launcher() -> None:
    """Skip the test if nemo-run is not installed."""
    if not LAUNCHER.is_file():
        pytest.skip(f"no {LAUNCHER.relative_to(ROOT)}: 'make test-slurm' installs nemo-run and runs this test")


def launch(*arguments: str | Path, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `acc-megatron launch` as a user would, in the environment with nemo-run and without torch."""
    need_launcher()
    return run_command([str(LAUNCHER), "launch", *map(str, arguments)], timeout=timeout, **environment)


class SlurmCluster:
    """Two nodes, n1 and n2, with accounting; `environment` makes SLURM's commands talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons; fails with their logs."""
        done = run_command(["bash", str(SUPPORT / "slurm_up.sh"), str(self.folder), "2", str(free_port())], timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def stop(self) -> None:
        """Cancel all jobs and stop every daemon."""
        done = run_command(["bash", str(SUPPORT / "slurm_down.sh"), str(self.folder)], timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def logs(self) -> str:
        """The end of every daemon's log."""
        return "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in sorted((self.folder / "log").glob("*")))

    def ask(self, *command: str) -> str:
        """The output of one of SLURM's commands."""
        done = run_command(list(command), timeout=60, **self.environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self, job: str) -> str:
        """The state of a job in accounting."""
        lines = self.ask("sacct", "-nPX", "-j", job, "-o", "State").split("\n")
        return lines[0].split()[0] if lines[0].strip() else "UNKNOWN"

    def wait(self, what: str, seconds: float, until: Callable[[], Any], explain: Callable[[], str]) -> Any:
        """The first true value of `until`; fails after `seconds` with the text of `explain`."""
        end = time.monotonic() + seconds
        while not (value := until()):
            if time.monotonic() > end:
                pytest.fail(f"no {what} after {seconds} s\n{self.ask('squeue')}\n{explain()}\n{self.logs()[-4000:]}")
            time.sleep(0.5)
        return value

    def resume(self, node: str) -> None:
        """Return a lost node to service; SLURM refuses this for a node that is in service already."""
        run_command(["scontrol", "update", f"nodename={node}", "state=resume"], timeout=60, **self.environment)

    def start_now(self, job: str) -> None:
        """Start a requeued job now; by default it waits."""
        subprocess.run(
            ["scontrol", "update", f"jobid={job}", "starttime=now"],
            env=os.environ | self.environment, capture_output=True, timeout=60, check=False,
        )  # fmt: skip


def need_slurm() -> None:
    """Skip the test if SLURM is not installed or cannot be started."""
    need_launcher()
    for program in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"no {program}: 'make test-slurm' installs SLURM")
    if os.geteuid() != 0:
        pytest.skip("only root can start the daemons of SLURM")


def read_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that `--json` printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])
